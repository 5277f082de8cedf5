import { parseVmdesc, type SplitSection, splitDeviceSections } from '../../wire/index.ts';
import { checkpointError } from './errors.ts';

/** FULL sections one after another, at `origin` of the file. */
export interface SectionBytes {
  readonly bytes: Buffer;
  readonly origin: number;
}

/**
 * The sections in `parts`, found by the stream's description: while the stream was read they were found by their footers only. Throws
 * CHECKPOINT_DEVICES if the description does not fit the bytes.
 */
export function checkSections(path: string, description: string, parts: readonly SectionBytes[]): SplitSection[] {
  try {
    const vmdesc = parseVmdesc(description);
    return parts.flatMap(({ bytes, origin }) => splitDeviceSections(bytes, vmdesc, origin, path));
  } catch (error) {
    throw checkpointError(
      { code: 'CHECKPOINT_DEVICES', path },
      'the device sections are not what the description of the stream says',
      error,
    );
  }
}
