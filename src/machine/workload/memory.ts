/** The RAM blocks' memory on the event loop's side: windows for the source, the sink for the destination. */

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { addressOf, adviseHugePages, canVector } from '../../native/index.ts';
import type { PageWindow, RamSink } from '../machine.ts';
import { CHUNK_BYTES, CHUNK_SHIFT, type Layout, PAGE_SIZE } from './layout.ts';

const ZERO_PAGE = Buffer.alloc(PAGE_SIZE);

export class Memory {
  /** In the order of the layout's blocks. Zero and not backed by host memory until written. */
  readonly shared: readonly SharedArrayBuffer[];
  /** By block, then by chunk of 1 GiB. */
  readonly #windows: readonly (readonly PageWindow[])[];

  constructor(layout: Layout) {
    this.shared = layout.blocks.map((block) => new SharedArrayBuffer(block.usedLength));
    this.#windows = layout.blocks.map((block, index) => {
      const windows: PageWindow[] = [];
      for (let at = 0; at < block.usedLength; at += CHUNK_BYTES) {
        const bytes = Buffer.from(this.shared[index]!, at, Math.min(CHUNK_BYTES, block.usedLength - at));
        adviseHugePages(bytes);
        windows.push({
          bytes,
          address: canVector() ? addressOf(bytes) : undefined,
          firstPage: at / PAGE_SIZE,
          pageCount: bytes.length / PAGE_SIZE,
        });
      }
      return windows;
    });
  }

  /** Has the host back every page now. They stay zero. */
  populate(): void {
    for (const windows of this.#windows) {
      for (const { bytes } of windows) for (let at = 0; at < bytes.length; at += PAGE_SIZE) bytes[at] = 0;
    }
  }

  window(block: number, page: number): PageWindow {
    return this.#windows[block]![page >>> CHUNK_SHIFT]!;
  }

  /** `order[i]`: this memory's block for the sink's block i. */
  sink(order: readonly number[]): RamSink {
    return new MemorySink(order.map((block) => this.#windows[block]!));
  }
}

class MemorySink implements RamSink {
  readonly #windows: readonly (readonly PageWindow[])[];

  constructor(windows: readonly (readonly PageWindow[])[]) {
    this.#windows = windows;
  }

  page(block: number, offset: number, from: Buffer, at: number): void {
    from.copy(this.#chunk(block, offset), offset % CHUNK_BYTES, at, at + PAGE_SIZE);
  }

  /** Compares first: writing zeros into fresh memory would make the host back it. */
  zero(block: number, offset: number): void {
    const chunk = this.#chunk(block, offset);
    const start = offset % CHUNK_BYTES;
    if (ZERO_PAGE.compare(chunk, start, start + PAGE_SIZE) !== 0) ZERO_PAGE.copy(chunk, start);
  }

  read(block: number, offset: number, into: Buffer): void {
    const start = offset % CHUNK_BYTES;
    this.#chunk(block, offset).copy(into, 0, start, start + PAGE_SIZE);
  }

  #chunk(block: number, offset: number): Buffer {
    return this.#windows[block]![Math.floor(offset / CHUNK_BYTES)]!.bytes;
  }
}

let collect: (() => void) | undefined;

/**
 * Makes the engine look for dead objects now. Shared memory does not count towards a thread's heap, so gigabytes that nobody
 * refers to would otherwise stay until something else fills the heap.
 */
export function releaseDroppedMemory(): void {
  if (collect === undefined) {
    setFlagsFromString('--expose-gc');
    collect = runInNewContext('gc') as () => void;
    setFlagsFromString('--no-expose-gc');
  }
  collect();
}
