/**
 * The loop over page records (format: records.ts). Pages go to the sink where they lie in the reader's buffer: nothing is copied and
 * nothing allocated per page. One decoder per channel, as CONTINUE refers to the block last named on the same channel, in whatever section.
 */
import type { Reader } from '../../base/index.ts';
import { hex, joinPath, unexpected, unsupported, type WireError } from '../errors.ts';
import { xbzrleDecode } from '../xbzrle/decode.ts';
import { RAM_FLAG, ramFlagNames } from './flags.ts';
import { XBZRLE_ENCODING } from './records.ts';
import { type AnnouncedBlock, noPages, type RamCounts, type RamSink } from './sink.ts';

/** Why `RamDecoder.decode` came back. The record that is named has been consumed. */
export const RAM_STOP = {
  /** The next record is not whole yet; `wanted` bytes are needed for it (or to know more). */
  STARVED: 0,
  /** As many records as were allowed. */
  FULL: 1,
  EOS: 2,
  MULTIFD_FLUSH: 3,
} as const;
export type RamStop = (typeof RAM_STOP)[keyof typeof RAM_STOP];

export interface RamRules {
  /** XBZRLE records are legal until postcopy begins. */
  xbzrle: boolean;
  /** With mapped-ram pages are in their regions, never in records. */
  pages: boolean;
}

export class RamDecoder {
  /** Records seen since the decoder was made. */
  readonly counts: RamCounts = noPages();
  readonly rules: RamRules = { xbzrle: true, pages: true };
  /** After STARVED: bytes that the next record needs, as far as known. */
  wanted = 0;

  readonly #pageSize: number;
  readonly #blocks: readonly AnnouncedBlock[];
  readonly #sink: RamSink;
  readonly #names: readonly Buffer[];
  readonly #indexes: ReadonlyMap<string, number>;
  readonly #scratch: Buffer;
  /** Block that CONTINUE refers to; -1 until one is named. */
  #current = -1;
  /** Offset of the page record seen last. */
  #offset = 0;

  constructor(pageSize: number, blocks: readonly AnnouncedBlock[], sink: RamSink) {
    this.#pageSize = pageSize;
    this.#blocks = blocks;
    this.#sink = sink;
    this.#names = blocks.map((block) => Buffer.from(block.idstr, 'latin1'));
    this.#indexes = new Map(blocks.map((block, index) => [block.idstr, index]));
    this.#scratch = Buffer.alloc(pageSize);
  }

  forgetBlock(): void {
    this.#current = -1;
  }

  /** Where the next page belongs if the stream goes on as streams mostly do, in order; undefined if nobody can tell. */
  get next(): { readonly block: number; readonly offset: number } | undefined {
    const offset = this.#offset + this.#pageSize;
    if (this.#current < 0 || !this.rules.pages || offset >= this.#blocks[this.#current]!.usedLength) return undefined;
    return { block: this.#current, offset };
  }

  /** The next `pageCount` PAGE records (of `next`, with CONTINUE) were received by other means. */
  passed(pageCount: number): void {
    this.#offset += pageCount * this.#pageSize;
    this.counts.normal += pageCount;
  }

  /** Feeds the sink until the reader is empty, `recordsMax` page records are done or a record is of another kind. Throws WireError. */
  decode(reader: Reader, recordsMax: number): RamStop {
    const pageSize = this.#pageSize;
    const sink = this.#sink;
    const counts = this.counts;
    const bytes = reader.bytes;
    const end = reader.end;
    let pos = reader.pos;
    let block = this.#current;
    let blockEnd = block < 0 ? 0 : this.#blocks[block]!.usedLength;

    for (let left = recordsMax; left > 0; left--) {
      if (end - pos < 8) return this.#starve(reader, pos, 8);
      // By bytes: the read methods of Buffer would cost more than all the rest of this loop.
      const low = (bytes[pos + 4]! << 24) | (bytes[pos + 5]! << 16) | (bytes[pos + 6]! << 8) | bytes[pos + 7]!;
      const high = (bytes[pos]! << 24) | (bytes[pos + 1]! << 16) | (bytes[pos + 2]! << 8) | bytes[pos + 3]!;
      const flags = low & (pageSize - 1);
      const kind = flags & ~RAM_FLAG.CONTINUE;
      const offset = (high >>> 0) * 0x1_0000_0000 + ((low - flags) >>> 0);
      if (kind !== RAM_FLAG.PAGE && kind !== RAM_FLAG.ZERO && kind !== RAM_FLAG.XBZRLE) {
        reader.pos = pos;
        return this.#control(reader, flags, offset);
      }

      let at = pos + 8;
      if ((flags & RAM_FLAG.CONTINUE) === 0) {
        if (at === end) return this.#starve(reader, pos, 9);
        const length = bytes[at]!;
        if (end - at <= length) return this.#starve(reader, pos, 9 + length);
        if (block < 0 || !this.#isNamed(block, bytes, at + 1, length)) {
          // A name that is not committed to #current yet is found again when the record is retried.
          block = this.#find(reader, pos, at + 1, length);
          blockEnd = this.#blocks[block]!.usedLength;
        }
        at += 1 + length;
      }
      if (block < 0 || offset + pageSize > blockEnd) throw this.#misplaced(reader, pos, block, offset);
      if (!this.rules.pages) throw this.#illegal(reader, pos, flags, 'no page records (mapped-ram)');

      if (kind === RAM_FLAG.PAGE) {
        if (end - at < pageSize) return this.#starve(reader, pos, at - pos + pageSize);
        sink.page(block, offset, bytes, at);
        counts.normal++;
        pos = at + pageSize;
      } else if (kind === RAM_FLAG.ZERO) {
        if (at === end) return this.#starve(reader, pos, at - pos + 1);
        if (bytes[at] !== 0) throw this.#unexpected(reader, at, block, offset, 'fill byte', '0', bytes[at]!);
        sink.zero(block, offset);
        counts.zero++;
        pos = at + 1;
      } else {
        const next = this.#xbzrle(reader, pos, at, block, offset);
        if (next < 0) return RAM_STOP.STARVED;
        pos = next;
      }
      this.#current = block;
      this.#offset = offset;
      reader.pos = pos;
    }
    return RAM_STOP.FULL;
  }

  #starve(reader: Reader, pos: number, wanted: number): RamStop {
    reader.pos = pos;
    this.wanted = wanted;
    return RAM_STOP.STARVED;
  }

  /** Returns the position behind the record, -1 if it is not whole. */
  #xbzrle(reader: Reader, pos: number, at: number, block: number, offset: number): number {
    const bytes = reader.bytes;
    if (!this.rules.xbzrle) throw this.#illegal(reader, pos, RAM_FLAG.XBZRLE, 'PAGE or ZERO, as postcopy has begun');
    if (reader.end - at < 3) {
      this.#starve(reader, pos, at - pos + 3);
      return -1;
    }
    if (bytes[at] !== XBZRLE_ENCODING) {
      throw this.#unexpected(reader, at, block, offset, 'xbzrle encoding', String(XBZRLE_ENCODING), bytes[at]!);
    }
    const length = bytes.readUInt16BE(at + 1);
    if (length > this.#pageSize) {
      throw this.#unexpected(reader, at + 1, block, offset, 'xbzrle length', `at most ${this.#pageSize}`, length);
    }
    const body = at + 3;
    if (reader.end - body < length) {
      this.#starve(reader, pos, body - pos + length);
      return -1;
    }
    this.#sink.read(block, offset, this.#scratch);
    const wrong = xbzrleDecode(bytes, body, length, this.#scratch, this.#pageSize);
    if (wrong !== undefined) {
      throw this.#unexpected(reader, body, block, offset, 'xbzrle body', 'runs inside the page', wrong);
    }
    this.#sink.page(block, offset, this.#scratch, 0);
    this.counts.xbzrle++;
    this.counts.xbzrleBytes += length;
    return body + length;
  }

  /** Anything but a page record. */
  #control(reader: Reader, flags: number, offset: number): RamStop {
    const pos = reader.pos;
    if (flags === RAM_FLAG.EOS || (flags === RAM_FLAG.MULTIFD_FLUSH && this.rules.pages)) {
      if (offset !== 0) {
        throw unexpected(reader, reader.origin + pos, '', `address of ${ramFlagNames(flags)}`, '0', hex(offset));
      }
      reader.pos = pos + 8;
      return flags === RAM_FLAG.EOS ? RAM_STOP.EOS : RAM_STOP.MULTIFD_FLUSH;
    }
    if (flags === RAM_FLAG.HOOK) throw unsupported(reader, reader.origin + pos, '', 'RDMA (record HOOK)', 'HOOK');
    if ((flags & ~RAM_FLAG.CONTINUE) === RAM_FLAG.COMPRESS_PAGE) {
      throw unsupported(
        reader,
        reader.origin + pos,
        '',
        'capability compress (record COMPRESS_PAGE)',
        ramFlagNames(flags),
      );
    }
    if (flags === RAM_FLAG.FULL) throw unsupported(reader, reader.origin + pos, '', 'the obsolete record FULL', 'FULL');
    throw this.#illegal(reader, pos, flags, this.rules.pages ? 'one of ZERO, PAGE, XBZRLE, EOS, MULTIFD_FLUSH' : 'EOS');
  }

  #isNamed(block: number, bytes: Buffer, at: number, length: number): boolean {
    const name = this.#names[block]!;
    if (name.length !== length) return false;
    for (let i = 0; i < length; i++) if (name[i] !== bytes[at + i]) return false;
    return true;
  }

  #find(reader: Reader, pos: number, at: number, length: number): number {
    const name = reader.bytes.toString('latin1', at, at + length);
    const index = this.#indexes.get(name);
    if (index !== undefined) return index;
    throw unexpected(reader, reader.origin + pos + 8, '', 'block', 'one of the block list', JSON.stringify(name));
  }

  #misplaced(reader: Reader, pos: number, block: number, offset: number): WireError {
    if (block < 0) {
      return unexpected(
        reader,
        reader.origin + pos,
        '',
        'block',
        'a name in the first record of the channel',
        'CONTINUE',
      );
    }
    const last = this.#blocks[block]!.usedLength - this.#pageSize;
    return this.#unexpected(reader, pos, block, offset, 'offset of the page', `at most ${hex(last)}`, hex(offset));
  }

  #illegal(reader: Reader, pos: number, flags: number, expected: string): WireError {
    return unexpected(reader, reader.origin + pos, '', 'flags of the record', expected, ramFlagNames(flags));
  }

  #unexpected(
    reader: Reader,
    pos: number,
    block: number,
    offset: number,
    field: string,
    expected: string,
    found: string | number,
  ): WireError {
    const path = joinPath(`block ${this.#blocks[block]!.idstr}`, `page ${offset / this.#pageSize}`);
    return unexpected(reader, reader.origin + pos, path, field, expected, found);
  }
}
