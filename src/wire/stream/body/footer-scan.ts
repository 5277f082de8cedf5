/**
 * Where a section body of unknown layout ends: at a footer with the section's id that is followed by something that can follow a
 * section. The proof that this holds for QEMU's streams is in qemu-wire 4; VMDESC, which comes last, is to be checked against it.
 */
import { type Reader, STARVED } from '../../../base/index.ts';
import { DESCRIPTION_BYTES_MAX } from '../../limits.ts';
import { isCommand } from '../command.ts';
import type { SectionHeader } from '../events.ts';
import { ELEMENT, SECTION_FOOTER_BYTES } from '../section.ts';

/** What the scan knows about the rest of the stream. */
export interface ScanContext {
  /** Sections seen so far, by id, this one included. */
  readonly known: ReadonlyMap<number, SectionHeader>;
  /** Stream offset where the package ends that holds the section. */
  readonly packageEnd: number | undefined;
  /** The driver says that the stream is silent: an EOF element that is the last thing there is one. */
  readonly silent: boolean;
}

export class FooterScan {
  readonly #needle: Buffer;
  /** Stream offset up to which no footer was found. */
  #at: number;

  constructor(id: number, bodyAt: number) {
    this.#needle = Buffer.alloc(SECTION_FOOTER_BYTES);
    this.#needle[0] = ELEMENT.SECTION_FOOTER;
    this.#needle.writeUInt32BE(id, 1);
    this.#at = bodyAt;
  }

  /** Stream offset of the footer. Throws STARVED; called again with more bytes it goes on where it was. */
  find(reader: Reader, context: ScanContext): number {
    const limit = Math.min(reader.end, (context.packageEnd ?? Infinity) - reader.origin);
    const seen = reader.bytes.subarray(0, limit);
    for (;;) {
      const hit = seen.indexOf(this.#needle, this.#at - reader.origin);
      if (hit < 0) {
        this.#at = Math.max(this.#at, reader.origin + limit - SECTION_FOOTER_BYTES + 1);
        if (limit === reader.end) break;
        return -1;
      }
      this.#at = reader.origin + hit;
      const verdict = canFollow(reader, hit + SECTION_FOOTER_BYTES, context);
      if (verdict === true) return this.#at;
      if (verdict === undefined) break;
      this.#at++;
    }
    reader.need(reader.available + 1);
    throw STARVED;
  }
}

/** Whether a section may end at `pos`; undefined: more bytes are needed to tell. */
function canFollow(reader: Reader, pos: number, context: ScanContext): boolean | undefined {
  const { bytes, end } = reader;
  if (reader.origin + pos === context.packageEnd) return true;
  if (pos >= end) return undefined;
  const available = end - pos;
  switch (bytes[pos]) {
    case ELEMENT.SECTION_START:
    case ELEMENT.SECTION_FULL: {
      if (available < 6) return undefined;
      const length = bytes[pos + 5]!;
      if (length === 0) return false;
      for (let i = 0; i < Math.min(length, available - 6); i++) {
        const code = bytes[pos + 6 + i]!;
        if (code < 0x20 || code > 0x7e) return false;
      }
      return available >= 6 + length ? true : undefined;
    }
    case ELEMENT.SECTION_PART:
    case ELEMENT.SECTION_END:
      return available < 5 ? undefined : context.known.has(bytes.readUInt32BE(pos + 1));
    case ELEMENT.COMMAND:
      return available < 5 ? undefined : isCommand(bytes.readUInt16BE(pos + 1), bytes.readUInt16BE(pos + 3));
    case ELEMENT.EOF:
      if (available === 1) return reader.final || context.silent ? true : undefined;
      if (bytes[pos + 1] !== ELEMENT.VMDESCRIPTION) return false;
      return available < 6 ? (reader.final ? false : undefined) : bytes.readUInt32BE(pos + 2) <= DESCRIPTION_BYTES_MAX;
    default:
      return false;
  }
}
