/** Pages of guest memory that were written to by DMA, wherever they are: a bitmap in pieces that exist once something in them was written. */
import { newBitmap, nextSetBit, setBit } from '../../base/index.ts';
import type { DmaRange } from '../device.ts';

const PIECE_PAGES = 32_768;

export class PageLog {
  readonly pageSize: number;
  /** What is logged; none: everything. */
  readonly #ranges: readonly DmaRange[];
  readonly #pieces = new Map<number, Uint32Array>();

  constructor(pageSize: number, ranges: readonly DmaRange[]) {
    this.pageSize = pageSize;
    this.#ranges = ranges;
  }

  /** `length` bytes at `iova` have been written. */
  mark(iova: number, length: number): void {
    if (length === 0) return;
    if (this.#ranges.length === 0) this.#set(iova, iova + length);
    for (const range of this.#ranges) {
      const from = Math.max(iova, range.iova);
      const to = Math.min(iova + length, range.iova + range.length);
      if (from < to) this.#set(from, to);
    }
  }

  /**
   * Sets in `into` the bit of every page of `pageSize` bytes of the range in which something was written since the last report; bit 0 is
   * the page at `range.iova`. Pages of the log that the range covers are forgotten; those at its ends that it does not are told again.
   */
  report(range: DmaRange, pageSize: number, into: Uint32Array): void {
    const end = range.iova + range.length;
    const first = Math.floor(range.iova / this.pageSize);
    const last = Math.floor((end - 1) / this.pageSize);
    for (const [number, piece] of this.#pieces) {
      const base = number * PIECE_PAGES;
      const stop = Math.min(last - base + 1, PIECE_PAGES);
      for (let bit = Math.max(first - base, 0); bit < stop; bit++) {
        bit = nextSetBit(piece, bit, stop);
        if (bit < 0) break;
        const start = (base + bit) * this.pageSize;
        const from = Math.max(start, range.iova);
        const to = Math.min(start + this.pageSize, end);
        for (let at = Math.floor((from - range.iova) / pageSize); at * pageSize < to - range.iova; at++)
          setBit(into, at);
        if (to - from === this.pageSize) piece[bit >>> 5]! &= ~(1 << (bit & 31));
      }
    }
  }

  #set(from: number, to: number): void {
    const last = Math.floor((to - 1) / this.pageSize);
    for (let page = Math.floor(from / this.pageSize); page <= last; page++) {
      const number = Math.floor(page / PIECE_PAGES);
      let piece = this.#pieces.get(number);
      if (piece === undefined) {
        piece = newBitmap(PIECE_PAGES);
        this.#pieces.set(number, piece);
      }
      setBit(piece, page % PIECE_PAGES);
    }
  }
}
