/**
 * ```
 * 00   end of the sections
 * 06   u32 length, JSON text that describes them (VMDESC); may be empty
 * ```
 * @spec qemu migration/savevm.c qemu_savevm_state_complete_precopy
 */
import type { Reader, Writer } from '../../base/index.ts';
import { overLimit } from '../errors.ts';
import { expectValue } from '../fields.ts';
import { DESCRIPTION_BYTES_MAX } from '../limits.ts';
import { ELEMENT } from './section.ts';

export function encodeEndOfStream(writer: Writer): void {
  writer.u8(ELEMENT.EOF);
}

/** `text`: latin1 (QEMU escapes everything else). */
export function encodeDescription(writer: Writer, text: string): void {
  const bytes = Buffer.from(text, 'latin1');
  writer.u8(ELEMENT.VMDESCRIPTION).u32(bytes.length).raw(bytes);
}

/** The text as latin1, type byte included in what is read. Not parsed here. */
export function decodeDescription(reader: Reader, bytesMax = DESCRIPTION_BYTES_MAX): string {
  const at = reader.offset;
  expectValue(reader, at, 'description', 'element type', ELEMENT.VMDESCRIPTION, reader.u8());
  const length = reader.u32();
  if (length > bytesMax) throw overLimit(reader, at + 1, 'description', 'length', bytesMax, length);
  return reader.view(length).toString('latin1');
}
