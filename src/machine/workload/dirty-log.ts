/**
 * One bit a page over the flat page numbers, in shared memory.
 *
 * Why no store is lost. A vCPU stores to the page first and then does `Atomics.or`; a harvest does `Atomics.exchange` and the page
 * is read after it. Both are sequentially consistent read-modify-writes of the same word, so one comes first:
 *   - the `or` first: the exchange takes the bit and everything the vCPU did before the `or` is visible to the reader;
 *   - the exchange first: the reader may see the store, half of it or nothing, but the bit stays for the next harvest.
 * The `or` must not be left out when a plain load finds the bit set: the load may be done before the store leaves the processor's
 * store buffer, the bit taken and the page read in between.
 *
 * A harvest may pass over words that a plain load finds zero: a bit that it misses is still there at the next harvest, and the
 * harvest after a stop misses none because the acknowledgement of the stop (see control-words) comes after every `or`.
 */
import { bitmapWords, popcount32 } from '../../base/index.ts';
import type { DirtyLog } from '../machine.ts';
import type { BlockLayout, Layout } from './layout.ts';

export function newDirtyLogMemory(layout: Layout): SharedArrayBuffer {
  return new SharedArrayBuffer(layout.flatPageCount / 8);
}

/** Called by vCPUs, after the store. */
export function markDirty(log: Int32Array, flatPage: number): void {
  Atomics.or(log, flatPage >>> 5, 1 << (flatPage & 31));
}

/** Moves the bits of a block into `into` and clears them; returns how many are new there. */
export function harvest(log: Int32Array, block: BlockLayout, into: Uint32Array): number {
  const first = block.firstPage >>> 5;
  const wordCount = bitmapWords(block.pageCount);
  let added = 0;
  for (let i = 0; i < wordCount; i++) {
    if (log[first + i] === 0) continue;
    const taken = Atomics.exchange(log, first + i, 0);
    const fresh = taken & ~into[i]!;
    if (fresh === 0) continue;
    into[i]! |= fresh;
    added += popcount32(fresh);
  }
  return added;
}

/** What the log needs of the vCPUs: resolves when each of them logs its stores (or no longer does). */
export type SwitchLogging = (on: boolean) => Promise<void>;

export class WorkloadDirtyLog implements DirtyLog {
  readonly #log: Int32Array;
  readonly #layout: Layout;
  readonly #switchLogging: SwitchLogging;

  constructor(memory: SharedArrayBuffer, layout: Layout, switchLogging: SwitchLogging) {
    this.#log = new Int32Array(memory);
    this.#layout = layout;
    this.#switchLogging = switchLogging;
  }

  start(): Promise<void> {
    const log = this.#log;
    for (let i = 0; i < log.length; i++) if (log[i] !== 0) Atomics.exchange(log, i, 0);
    return this.#switchLogging(true);
  }

  harvest(block: number, into: Uint32Array): number {
    return harvest(this.#log, this.#layout.blocks[block]!, into);
  }

  stop(): Promise<void> {
    return this.#switchLogging(false);
  }
}
