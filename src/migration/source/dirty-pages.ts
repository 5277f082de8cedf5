import { fillBitmap, newBitmap, nextSetBit } from '../../base/index.ts';
import type { DirtyLog, RamBlock } from '../../machine/index.ts';

/**
 * The migration bitmap: pages that are still to be sent, and where the round goes on. Bits are set by `harvest` from the machine's dirty log and
 * cleared by whoever sends the page, just before it is read: a store that comes while the page is read sets its bit in the log again,
 * and the page goes once more, in a later round.
 */
export class DirtyPages {
  /** Those whose pages are sent (with x-ignore-shared, not all of the machine's). */
  readonly blocks: readonly RamBlock[];
  readonly pageSize: number;
  /** By place in `blocks`, as all that follows. */
  readonly bitmaps: readonly Uint32Array[];
  readonly pageCounts: readonly number[];
  /** Set bits in all of them: whoever clears one counts it. */
  count: number;
  /** Where the round goes on: nothing in front of it is dirty up to where it began. */
  block = 0;
  page = 0;

  /** At first every page is dirty. */
  constructor(blocks: readonly RamBlock[], pageSize: number) {
    this.blocks = blocks;
    this.pageSize = pageSize;
    this.pageCounts = blocks.map((block) => block.usedLength / pageSize);
    this.bitmaps = this.pageCounts.map((count) => newBitmap(count));
    for (const [index, map] of this.bitmaps.entries()) fillBitmap(map, this.pageCounts[index]!);
    this.count = this.pageCounts.reduce((sum, count) => sum + count, 0);
  }

  /** Moves to the next dirty page, in order and round and round; there must be one. */
  find(): void {
    for (;;) {
      const page = nextSetBit(this.bitmaps[this.block]!, this.page, this.pageCounts[this.block]!);
      this.page = Math.max(page, 0);
      if (page >= 0) return;
      this.block = (this.block + 1) % this.blocks.length;
    }
  }

  /** Takes the bits that the log has got since the last call; returns how many pages became dirty. */
  harvest(log: DirtyLog): number {
    let dirtied = 0;
    for (const [index, block] of this.blocks.entries()) dirtied += log.harvest(block.index, this.bitmaps[index]!);
    this.count += dirtied;
    return dirtied;
  }
}
