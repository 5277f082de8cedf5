/** The RAM blocks' memory on the event loop's side: windows for the source, the sink for the destination. */

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { newBitmap, nextSetBit, setBit, testBit } from '../../base/index.ts';
import { addressOf, adviseHugePages, canVector, plainView } from '../../native/index.ts';
import type { DirectSink, FreshRun } from '../../wire/index.ts';
import type { IncomingRam, PageWindow } from '../machine.ts';
import type { MemoryRam } from '../shared-ram.ts';
import { CHUNK_BYTES, CHUNK_SHIFT, type Layout, PAGE_SIZE } from './layout.ts';

const ZERO_PAGE = Buffer.alloc(PAGE_SIZE);

export class Memory {
  /** In the order of the layout's blocks. Zero and not backed by host memory until written. */
  readonly shared: readonly SharedArrayBuffer[];
  /** By block, then by chunk of 1 GiB. */
  readonly #windows: readonly (readonly PageWindow[])[];
  readonly #layout: Layout;

  constructor(layout: Layout) {
    this.#layout = layout;
    this.shared = layout.blocks.map((block) => new SharedArrayBuffer(block.usedLength));
    this.#windows = layout.blocks.map((block, index) => {
      const windows: PageWindow[] = [];
      for (let at = 0; at < block.usedLength; at += CHUNK_BYTES) {
        const shared = Buffer.from(this.shared[index]!, at, Math.min(CHUNK_BYTES, block.usedLength - at));
        adviseHugePages(shared);
        const bytes = plainView(shared);
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

  /** The layout's blocks, in their order. */
  ram(): MemoryRam {
    return this.#ram([...this.shared.keys()], false);
  }

  #ram(order: readonly number[], isZero: boolean): MemoryRam {
    const blocks = order.map((block) => {
      const { idstr, usedLength } = this.#layout.blocks[block]!;
      return { idstr, usedLength, memory: this.shared[block]!, byteOffset: 0 };
    });
    return { kind: 'memory', pageSize: PAGE_SIZE, isZero, blocks };
  }

  /** Fresh memory to be filled. `order[i]`: this memory's block for the sink's block i. */
  sink(order: readonly number[]): IncomingRam {
    return new MemorySink(
      order.map((block) => this.#windows[block]!),
      this.#ram(order, true),
    );
  }
}

class MemorySink implements DirectSink, IncomingRam {
  readonly #windows: readonly (readonly PageWindow[])[];
  /** Pages that something has been put into; the others are as the memory came: zero. */
  readonly #received: readonly Uint32Array[];
  readonly #ram: MemoryRam;
  /** Threads put pages into the memory too: `received` does not tell of all. */
  #isShared = false;

  constructor(windows: readonly (readonly PageWindow[])[], ram: MemoryRam) {
    this.#windows = windows;
    this.#ram = ram;
    this.#received = windows.map((chunks) => newBitmap(chunks.reduce((sum, chunk) => sum + chunk.pageCount, 0)));
  }

  share(): MemoryRam {
    this.#isShared = true;
    return this.#ram;
  }

  page(block: number, offset: number, from: Buffer, at: number): void {
    setBit(this.#received[block]!, offset / PAGE_SIZE);
    from.copy(this.#chunk(block, offset).bytes, offset % CHUNK_BYTES, at, at + PAGE_SIZE);
  }

  /** Memory that is zero already is not touched: the host would have to back it. */
  zero(block: number, offset: number): void {
    const received = this.#received[block]!;
    const page = offset / PAGE_SIZE;
    if (this.#isShared) this.#clear(this.#chunk(block, offset).bytes, offset % CHUNK_BYTES);
    else if (testBit(received, page)) ZERO_PAGE.copy(this.#chunk(block, offset).bytes, offset % CHUNK_BYTES);
    else setBit(received, page);
  }

  /** Looking does not make the host back a page that is not there. */
  #clear(bytes: Buffer, at: number): void {
    if (bytes.compare(ZERO_PAGE, 0, PAGE_SIZE, at, at + PAGE_SIZE) !== 0) ZERO_PAGE.copy(bytes, at);
  }

  read(block: number, offset: number, into: Buffer): void {
    const start = offset % CHUNK_BYTES;
    this.#chunk(block, offset).bytes.copy(into, 0, start, start + PAGE_SIZE);
  }

  fresh(block: number, offset: number, pagesMax: number): FreshRun | undefined {
    const chunk = this.#chunk(block, offset);
    if (chunk.address === undefined || this.#isShared) return undefined;
    const page = offset / PAGE_SIZE;
    const received = this.#received[block]!;
    if (testBit(received, page)) return undefined;
    const last = Math.min(page + pagesMax, chunk.firstPage + chunk.pageCount);
    const end = nextSetBit(received, page, last);
    const start = offset % CHUNK_BYTES;
    const stop = start + ((end < 0 ? last : end) - page) * PAGE_SIZE;
    return { bytes: chunk.bytes.subarray(start, stop), address: chunk.address + start };
  }

  filled(block: number, offset: number, pageCount: number): void {
    const received = this.#received[block]!;
    const page = offset / PAGE_SIZE;
    for (let i = 0; i < pageCount; i++) setBit(received, page + i);
  }

  #chunk(block: number, offset: number): PageWindow {
    return this.#windows[block]![Math.floor(offset / CHUNK_BYTES)]!;
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
