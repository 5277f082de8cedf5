/** Bodies of the ram sections of one stream, event by event: block list, regions of mapped-ram, page records. */
import type { Reader } from '../../base/index.ts';
import { hex, joinPath, overLimit, unexpected } from '../errors.ts';
import { RAM_BATCH_RECORDS_MAX, RAM_BLOCKS_MAX } from '../limits.ts';
import type { SectionHeader, StreamEvent, StreamRamBlock } from '../stream/events.ts';
import { type BlockListLayout, decodeRamBlock, RAM_SECTION_VERSION } from './block-list.ts';
import { RAM_STOP, RamDecoder } from './decoder.ts';
import { RAM_FLAG, ramFlagNames } from './flags.ts';
import { noPages, type RamSink } from './sink.ts';

/** The body is over, the footer comes. */
export const BODY_END = Symbol('body end');

export class RamSections {
  #step: 'total' | 'blocks' | 'region' | 'records' = 'total';
  #layout: BlockListLayout = { pageSize: 4096, pageSizeSummary: undefined, ignoreShared: false, mappedRam: false };
  #totalBytes = 0;
  #listedBytes = 0;
  #listOffset = 0;
  readonly #blocks: StreamRamBlock[] = [];
  readonly #names = new Set<string>();
  /** Stream offset up to which a mapped-ram region is skipped. */
  #regionEnd = 0;
  #decoder: RamDecoder | undefined;

  get blocks(): readonly StreamRamBlock[] {
    return this.#blocks;
  }

  get totalBytes(): number {
    return this.#totalBytes;
  }

  get pages() {
    return this.#decoder === undefined ? noPages() : { ...this.#decoder.counts };
  }

  /** While a region of mapped-ram is skipped: where the stream goes on. */
  get skipTo(): number | undefined {
    return this.#step === 'region' ? this.#regionEnd : undefined;
  }

  /** The decoder while page records are read; undefined in between. */
  get decoder(): RamDecoder | undefined {
    return this.#step === 'records' ? this.#decoder : undefined;
  }

  setSink(sink: RamSink): void {
    this.#decoder = new RamDecoder(this.#layout.pageSize, this.#blocks, sink);
    this.#decoder.rules.pages = !this.#layout.mappedRam;
  }

  /** From POSTCOPY_LISTEN on. */
  beginPostcopy(): void {
    if (this.#decoder !== undefined) this.#decoder.rules.xbzrle = false;
  }

  /** The channel is a new one: CONTINUE has nothing to refer to. */
  forgetBlock(): void {
    this.#decoder?.forgetBlock();
  }

  /** `sectionAt`: stream offset of the section. */
  begin(reader: Reader, section: SectionHeader, sectionAt: number, layout: BlockListLayout): void {
    this.#layout = layout;
    if (section.kind !== 'start') return;
    if (section.version !== RAM_SECTION_VERSION) {
      throw unexpected(reader, sectionAt, 'section ram', 'version', String(RAM_SECTION_VERSION), section.version);
    }
  }

  /** The next event of the body, BODY_END behind EOS, undefined to be called again. Throws STARVED: the reader goes back to where it was. */
  next(reader: Reader): StreamEvent | typeof BODY_END | undefined {
    switch (this.#step) {
      case 'total':
        return this.#readTotal(reader);
      case 'blocks':
        return this.#readBlock(reader);
      case 'region':
        return this.#skipRegion(reader);
      case 'records':
        return this.#readRecords(reader);
    }
  }

  #readTotal(reader: Reader): undefined {
    reader.need(8);
    const at = reader.offset;
    const low = reader.bytes.readUInt32BE(reader.pos + 4);
    const flags = low & (this.#layout.pageSize - 1);
    if (flags !== RAM_FLAG.MEM_SIZE) {
      throw unexpected(reader, at, 'block list', 'first record', 'MEM_SIZE', ramFlagNames(flags));
    }
    const high = reader.bytes.readUInt32BE(reader.pos);
    if (high > 0x1fffff) throw unexpected(reader, at, 'block list', 'total', 'below 2^53', hex(high * 0x1_0000_0000));
    reader.pos += 8;
    this.#listOffset = at;
    this.#totalBytes = high * 0x1_0000_0000 + (low - flags);
    this.#step = 'blocks';
  }

  #readBlock(reader: Reader): StreamEvent | undefined {
    const at = reader.offset;
    if (this.#listedBytes === this.#totalBytes) {
      this.#step = 'records';
      const blocks = this.#blocks;
      return {
        kind: 'ram-blocks',
        offset: this.#listOffset,
        length: at - this.#listOffset,
        totalBytes: this.#totalBytes,
        blocks,
      };
    }
    if (this.#blocks.length === RAM_BLOCKS_MAX) {
      throw overLimit(reader, at, 'block list', 'blocks', RAM_BLOCKS_MAX, RAM_BLOCKS_MAX + 1);
    }
    const block = decodeRamBlock(reader, this.#layout);
    const path = `block ${block.idstr}`;
    if (this.#names.has(block.idstr)) {
      throw unexpected(reader, at, 'block list', 'block name', 'each once', block.idstr);
    }
    const left = this.#totalBytes - this.#listedBytes;
    if (block.usedLength > left) {
      const legal = `at most ${left}, what is left of the total ${this.#totalBytes}`;
      throw unexpected(reader, at, joinPath('block list', path), 'used length', legal, block.usedLength);
    }
    this.#names.add(block.idstr);
    this.#blocks.push(block);
    this.#listedBytes += block.usedLength;
    if (block.mapped !== undefined && block.mapped.pagesOffset !== 0) {
      this.#regionEnd = block.mapped.pagesOffset + block.usedLength;
      this.#step = 'region';
    }
    return undefined;
  }

  /** Bitmap and pages of a block belong to whoever has the file at hand; here they only pass, chunk by chunk. */
  #skipRegion(reader: Reader): undefined {
    const left = this.#regionEnd - reader.offset;
    if (reader.available === 0) reader.need(left);
    reader.pos += Math.min(left, reader.available);
    if (reader.offset === this.#regionEnd) this.#step = 'blocks';
  }

  #readRecords(reader: Reader): StreamEvent | typeof BODY_END | undefined {
    if (this.#decoder === undefined) {
      if (!this.#layout.mappedRam) throw new Error('vmferry bug: page records before setRamSink');
      this.setSink(NO_SINK);
    }
    const decoder = this.#decoder!;
    const offset = reader.offset;
    const stop = decoder.decode(reader, RAM_BATCH_RECORDS_MAX);
    const length = reader.offset - offset;
    switch (stop) {
      case RAM_STOP.EOS:
        return BODY_END;
      case RAM_STOP.MULTIFD_FLUSH:
        return { kind: 'multifd-flush', offset: reader.offset - 8, length: 8 };
      case RAM_STOP.STARVED:
        if (length === 0) reader.need(decoder.wanted);
        return { kind: 'ram-batch', offset, length, pages: this.pages };
      case RAM_STOP.FULL:
        return { kind: 'ram-batch', offset, length, pages: this.pages };
    }
  }
}

/** With mapped-ram no record may carry a page. */
const NO_SINK: RamSink = { page() {}, zero() {}, read() {} };
