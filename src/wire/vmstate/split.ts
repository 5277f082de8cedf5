import { FerryError, Reader } from '../../base/index.ts';
import type { SectionHeader } from '../stream/events.ts';
import { decodeSectionBegin, decodeSectionFooter, ELEMENT, sectionPath } from '../stream/section.ts';
import type { Vmdesc, VmdescDevice, VmdescFault } from './vmdesc.ts';
import { type WalkedBody, walkPrefix } from './walk.ts';

/** One FULL section; offsets count from the start of the stream, bytes. */
export interface SplitSection {
  readonly section: SectionHeader;
  /** Of the section's type byte. */
  readonly offset: number;
  readonly bodyOffset: number;
  readonly bodyLength: number;
  readonly walked: WalkedBody;
}

/** Finds a section's entry in the VMDESC. */
export class VmdescIndex {
  readonly #devices = new Map<string, VmdescDevice>();

  constructor(vmdesc: Vmdesc) {
    for (const device of vmdesc.devices) this.#devices.set(`${device.instance_id}/${device.name}`, device);
  }

  find(section: { readonly idstr: string; readonly instance: number }): VmdescDevice | undefined {
    return this.#devices.get(`${section.instance}/${section.idstr}`);
  }
}

/**
 * Device sections found by description instead of by footers, one by one: `bytes` begin with a FULL section (at stream offset `origin`)
 * and hold nothing but FULL sections up to their end or to an EOF byte. Throws VMDESC_MISMATCH, VMDESC_DEVICE_MISSING, WireError.
 */
export function* deviceSections(
  bytes: Buffer,
  vmdesc: Vmdesc,
  origin = 0,
  stream = 'stream',
): Generator<SplitSection, void> {
  const index = new VmdescIndex(vmdesc);
  const reader = new Reader(bytes, stream, { final: true, origin });
  while (reader.available > 0 && reader.peekU8() !== ELEMENT.EOF) {
    const offset = reader.offset;
    const section = decodeSectionBegin(reader, () => undefined);
    const device = index.find(section);
    if (device === undefined) {
      const { idstr, instance } = section;
      const fault: VmdescFault = { code: 'VMDESC_DEVICE_MISSING', stream, offset, idstr, instance };
      throw new FerryError(fault, `${stream}: offset ${offset}: ${sectionPath(section)} is not in the VMDESC`);
    }
    const bodyOffset = reader.offset;
    const walked = walkPrefix(device, reader);
    const bodyLength = reader.offset - bodyOffset;
    decodeSectionFooter(reader, section);
    yield { section, offset, bodyOffset, bodyLength, walked };
  }
}

/** All of `deviceSections`. */
export function splitDeviceSections(bytes: Buffer, vmdesc: Vmdesc, origin = 0, stream = 'stream'): SplitSection[] {
  return [...deviceSections(bytes, vmdesc, origin, stream)];
}
