/**
 * Which pages a destination has, by target pages. From the switchover on it is the discards that tell: what the source does not discard it
 * has sent (qemu-wire fact 23), over whatever channels. A host page counts when all of it is in place.
 */
import { assert, clearRange, fillBitmap, newBitmap, nextClearBit, setRange, testBit } from '../../../base/index.ts';
import { bitmapToWire } from '../../../wire/index.ts';
import { badDiscard } from '../../errors.ts';

export interface ReceivedBlock {
  readonly idstr: string;
  /** Target pages. */
  readonly pageCount: number;
  /** A host page is so many target pages. */
  readonly hostPages: number;
  readonly received: Uint32Array;
}

export class ReceivedPages {
  readonly blocks: readonly ReceivedBlock[];
  readonly #targetPageSize: number;
  readonly #indexes: ReadonlyMap<string, number>;
  #missing = 0;

  /** Everything counts as received until it is discarded. `pageSize`: host pages, bytes. */
  constructor(
    blocks: readonly { readonly idstr: string; readonly usedLength: number; readonly pageSize: number }[],
    targetPageSize: number,
  ) {
    this.#targetPageSize = targetPageSize;
    this.blocks = blocks.map(({ idstr, usedLength, pageSize }) => {
      const pageCount = usedLength / targetPageSize;
      const received = newBitmap(pageCount);
      fillBitmap(received, pageCount);
      return { idstr, pageCount, hostPages: Math.max(1, pageSize / targetPageSize), received };
    });
    this.#indexes = new Map(blocks.map(({ idstr }, index) => [idstr, index]));
  }

  /** Target pages that are not there. */
  get missing(): number {
    return this.#missing;
  }

  indexOf(idstr: string): number | undefined {
    return this.#indexes.get(idstr);
  }

  has(block: number, page: number): boolean {
    return testBit(this.blocks[block]!.received, page);
  }

  /**
   * A range of POSTCOPY_RAM_DISCARD, bytes: whole host pages. Returns the block's index and the range in target pages. Throws
   * MIGRATION_DISCARD.
   */
  discard(idstr: string, start: number, length: number): { block: number; page: number; count: number } {
    const block = this.indexOf(idstr);
    if (block === undefined) throw badDiscard(idstr, start, length, 'there is no such block');
    const { pageCount, hostPages, received } = this.blocks[block]!;
    const hostPageSize = hostPages * this.#targetPageSize;
    if (start % hostPageSize !== 0 || length % hostPageSize !== 0)
      throw badDiscard(idstr, start, length, `pages of the block have ${hostPageSize} bytes`);
    if (start + length > pageCount * this.#targetPageSize)
      throw badDiscard(idstr, start, length, `the block has ${pageCount * this.#targetPageSize} bytes`);
    const page = start / this.#targetPageSize;
    const count = length / this.#targetPageSize;
    this.#missing += clearRange(received, page, count);
    return { block, page, count };
  }

  /** The host page that begins at `page` is in place. */
  place(block: number, page: number): void {
    const { received, hostPages } = this.blocks[block]!;
    assert(setRange(received, page, hostPages) === hostPages, 'a page is placed once');
    this.#missing -= hostPages;
  }

  /** First page at or behind `page` that is not there; -1 if the rest of the block is. */
  nextMissing(block: number, page: number): number {
    const { received, pageCount } = this.blocks[block]!;
    const next = nextClearBit(received, page, pageCount);
    return next < pageCount ? next : -1;
  }

  /** The block's bitmap as RECV_BITMAP carries it. */
  toWire(block: number): Buffer {
    const { received, pageCount } = this.blocks[block]!;
    return bitmapToWire(received, pageCount);
  }
}
