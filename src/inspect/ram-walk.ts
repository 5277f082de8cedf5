/** What a stream says about RAM: its blocks and, by block and kind, how many pages came; pages themselves are not kept. */
import { countBits } from '../base/index.ts';
import { bitmapFromWire, type RamCounts, type RamSink, type StreamRamBlock, wireBitmapBytes } from '../wire/index.ts';
import type { Ledger } from './ledger.ts';
import type { ReportedBlock, ReportedRam } from './report.ts';
import { type ByteSource, readRange } from './source.ts';

type PageKind = Exclude<keyof RamCounts, 'xbzrleBytes'>;

/** Counts page records by block and kind. */
class PageTally implements RamSink {
  readonly #pages: Readonly<Record<PageKind, Float64Array>>;
  /** The decoder asks for the old page before it hands over one that came as XBZRLE. */
  #isDelta = false;

  constructor(blockCount: number) {
    const none = () => new Float64Array(blockCount);
    this.#pages = { normal: none(), zero: none(), xbzrle: none() };
  }

  page(block: number): void {
    this.#pages[this.#isDelta ? 'xbzrle' : 'normal'][block]!++;
    this.#isDelta = false;
  }

  zero(block: number): void {
    this.#pages.zero[block]!++;
  }

  read(_block: number, _offset: number, into: Buffer): void {
    into.fill(0);
    this.#isDelta = true;
  }

  of(block: number): Record<PageKind, number> {
    const { normal, zero, xbzrle } = this.#pages;
    return { normal: normal[block]!, zero: zero[block]!, xbzrle: xbzrle[block]! };
  }

  get normalPages(): number {
    return this.#pages.normal.reduce((sum, pages) => sum + pages, 0);
  }
}

export class RamWalk {
  readonly #source: ByteSource;
  readonly #ledger: Ledger;
  #blocks: readonly StreamRamBlock[] = [];
  #pageSize = 0;
  #totalBytes = 0;
  #tally = new PageTally(0);
  /** Mapped-ram: pages in the file by block, as far as bitmaps are there. */
  readonly #mappedPages: number[] = [];
  /** Already in the ledger, of pages and of xbzrle bodies. */
  #entered = { normalPages: 0, xbzrleBytes: 0 };
  multifdFlushes = 0;

  constructor(source: ByteSource, ledger: Ledger) {
    this.#source = source;
    this.#ledger = ledger;
  }

  /**
   * The block list, `end` being the offset of its last byte: the records after it, or where the file ends or goes wrong. The sink is
   * for the records.
   */
  async takeBlocks(
    blocks: readonly StreamRamBlock[],
    totalBytes: number,
    pageSize: number,
    end: number,
  ): Promise<RamSink> {
    this.#blocks = blocks;
    this.#totalBytes = totalBytes;
    this.#pageSize = pageSize;
    this.#tally = new PageTally(blocks.length);
    for (const block of blocks) await this.#takeRegion(block, end);
    return this.#tally;
  }

  /** Records up to `end` are in the sink; `xbzrleBytes`: of all of them since the start. What is neither page nor delta is `rest`. */
  enterRecords(end: number, xbzrleBytes: number, rest: 'ramRecords' | 'incomplete'): void {
    const normalPages = this.#tally.normalPages;
    this.#ledger.to(end, rest, {
      ramPages: (normalPages - this.#entered.normalPages) * this.#pageSize,
      ramXbzrle: xbzrleBytes - this.#entered.xbzrleBytes,
    });
    this.#entered = { normalPages, xbzrleBytes };
  }

  /** Undefined if no block list was found. */
  get report(): ReportedRam | undefined {
    if (this.#blocks.length === 0) return undefined;
    const blocks = this.#blocks.map((block, i): ReportedBlock => {
      const { mapped, ...announced } = block;
      if (mapped === undefined) return { ...announced, ...this.#tally.of(i) };
      const { bitmapOffset, pagesOffset, pageSize } = mapped;
      const normal = this.#mappedPages[i] ?? 0;
      const zero = pagesOffset === 0 ? 0 : block.usedLength / pageSize - normal;
      return { ...announced, normal, zero, xbzrle: 0, mapped: { bitmapOffset, pagesOffset } };
    });
    return { totalBytes: this.#totalBytes, blocks, multifdFlushes: this.multifdFlushes };
  }

  async #takeRegion(block: StreamRamBlock, end: number): Promise<void> {
    const { mapped, usedLength } = block;
    const ledger = this.#ledger;
    if (mapped === undefined || mapped.pagesOffset === 0 || ledger.position >= end) {
      this.#mappedPages.push(0);
      return;
    }
    const { bitmapOffset, pagesOffset, pageSize } = mapped;
    const bitmapEnd = bitmapOffset + wireBitmapBytes(usedLength / pageSize);
    const pages = bitmapEnd > end ? 0 : await countMappedPages(this.#source, bitmapOffset, usedLength / pageSize);
    this.#mappedPages.push(pages);
    const cut = (offset: number) => Math.min(offset, end);
    ledger.to(cut(bitmapOffset), 'ramBlockList');
    ledger.to(cut(bitmapEnd), 'mappedBitmaps');
    ledger.to(cut(pagesOffset), 'mappedPadding');
    if (pagesOffset + usedLength > end) ledger.to(end, 'incomplete');
    else ledger.to(pagesOffset + usedLength, 'mappedHoles', { mappedPages: pages * pageSize });
  }
}

/** Bytes of bitmap read at once: 32 GiB of guest memory. */
const BITMAP_CHUNK = 1024 * 1024;

/** Pages of a mapped-ram block that its bitmap says are in the file. */
async function countMappedPages(source: ByteSource, bitmapOffset: number, pageCount: number): Promise<number> {
  const bitmapBytes = wireBitmapBytes(pageCount);
  let set = 0;
  for (let at = 0; at < bitmapBytes; at += BITMAP_CHUNK) {
    const bytes = await readRange(source, bitmapOffset + at, Math.min(BITMAP_CHUNK, bitmapBytes - at));
    set += countBits(bitmapFromWire(bytes, Math.min(bytes.length * 8, pageCount - at * 8)));
  }
  return set;
}
