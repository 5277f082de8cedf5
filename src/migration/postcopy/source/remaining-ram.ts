/**
 * RAM that the destination does not have, by host pages: the unit in which pages are discarded, asked for, sent and placed. A page of which
 * any part is dirty is dirty as a whole, since the destination can only drop it as a whole.
 */
import { assert, clearRange, countBits, nextSetBit, setRange, testBit } from '../../../base/index.ts';
import type { RamBlock } from '../../../machine/index.ts';

export interface RemainingBlock {
  /** The machine's handle of the block. */
  readonly index: number;
  readonly idstr: string;
  /** Target pages. */
  readonly pageCount: number;
  /** A host page is so many target pages. */
  readonly hostPages: number;
  /** Target pages that are still to be sent; whole host pages. */
  readonly dirty: Uint32Array;
}

/** A place in the RAM: `block` is an index in `blocks`, `page` a target page. */
export interface Place {
  block: number;
  page: number;
}

export class RemainingRam {
  readonly blocks: readonly RemainingBlock[];
  readonly #indexes: ReadonlyMap<string, number>;
  #pages = 0;

  /** Takes over `dirty`, a bitmap for each block. `targetPageSize` in bytes. */
  constructor(blocks: readonly RamBlock[], dirty: readonly Uint32Array[], targetPageSize: number) {
    this.blocks = blocks.map(({ index, idstr, usedLength, pageSize }, i) => ({
      index,
      idstr,
      pageCount: usedLength / targetPageSize,
      hostPages: Math.max(1, pageSize / targetPageSize),
      dirty: dirty[i]!,
    }));
    this.#indexes = new Map(blocks.map(({ idstr }, index) => [idstr, index]));
    for (const block of this.blocks) {
      widen(block);
      this.#pages += countBits(block.dirty);
    }
  }

  /** Target pages that are still to be sent, those that are being sent not included. */
  get pages(): number {
    return this.#pages;
  }

  indexOf(idstr: string): number | undefined {
    return this.#indexes.get(idstr);
  }

  isDirty(block: number, page: number): boolean {
    return testBit(this.blocks[block]!.dirty, page);
  }

  /** Moves `place` to the first dirty page at or behind it, going round at the end; false if there is none. */
  seek(place: Place): boolean {
    const count = this.blocks.length;
    // The block that the search begins in comes twice: its front part comes last.
    for (let left = count; left >= 0; left--) {
      const { dirty, pageCount } = this.blocks[place.block]!;
      const page = nextSetBit(dirty, place.page, pageCount);
      if (page >= 0) {
        place.page = page;
        return true;
      }
      place.block = (place.block + 1) % count;
      place.page = 0;
    }
    return false;
  }

  /** The host page that `page` lies in is being sent from now on: all of its target pages are clean. Returns the first one. */
  take(block: number, page: number): number {
    const { dirty, hostPages } = this.blocks[block]!;
    const first = page - (page % hostPages);
    assert(clearRange(dirty, first, hostPages) === hostPages, 'a page is sent once');
    this.#pages -= hostPages;
    return first;
  }

  /** What the destination says it has (a recovery): everything else is to be sent. `received`: bitmaps of target pages. */
  replace(received: readonly Uint32Array[]): void {
    this.#pages = 0;
    for (const [index, block] of this.blocks.entries()) {
      const { dirty, pageCount } = block;
      for (let word = 0; word < dirty.length; word++) dirty[word] = ~received[index]![word]!;
      const rest = pageCount & 31;
      if (rest !== 0) dirty[dirty.length - 1]! &= (1 << rest) - 1;
      widen(block);
      this.#pages += countBits(dirty);
    }
  }
}

/** Makes every host page that has a dirty target page dirty as a whole. */
function widen({ dirty, pageCount, hostPages }: RemainingBlock): void {
  if (hostPages === 1) return;
  for (let page = nextSetBit(dirty, 0, pageCount); page >= 0; ) {
    const first = page - (page % hostPages);
    setRange(dirty, first, hostPages);
    page = nextSetBit(dirty, first + hostPages, pageCount);
  }
}
