/** Where a receiving thread puts its pages. */
import type { SharedRam } from '../../machine/index.ts';
import { addressOf, alignedBuffer } from '../../native/index.ts';
import { MULTIFD_PACKET_PAGES_BYTES } from '../../wire/multifd/index.ts';
import { FileView } from './file-view.ts';
import { CHUNK_BYTES, MemoryView } from './memory-view.ts';
import type { PageSource } from './page-source.ts';
import { runLength } from './runs.ts';

/** One packet or batch at a time. A packet's content goes to the addresses of its pages, in their order; `placed` says that it is there. */
export interface PageTarget {
  /** Of page `index` of the packet, which is the one at byte `offset` of the block. Pages that are neighbours in both are so in memory. */
  addressOf(block: number, index: number, offset: number): number;
  /** The content of the first `count` pages is at their addresses. Throws FileFailure. */
  placed(block: number, offsets: Float64Array, count: number): void;
  /** Instead of both: content from a source that has selected the same pages. Throws FileFailure. */
  take(source: PageSource, block: number, offsets: Float64Array, count: number): void;
  /** The pages at `offsets[first..end)` are zero from now on. */
  clear(block: number, offsets: Float64Array, first: number, end: number): void;
}

export function pageTarget(ram: SharedRam): PageTarget {
  return ram.kind === 'memory'
    ? new MemoryTarget(new MemoryView(ram), ram.pageSize)
    : new FileTarget(new FileView(ram));
}

/** The page's own memory. */
class MemoryTarget implements PageTarget {
  readonly #memory: MemoryView;
  readonly #pageSize: number;

  constructor(memory: MemoryView, pageSize: number) {
    this.#memory = memory;
    this.#pageSize = pageSize;
  }

  addressOf(block: number, _index: number, offset: number): number {
    return this.#memory.addresses[block]! + offset;
  }

  placed(): void {}

  take(source: PageSource, block: number, offsets: Float64Array, count: number): void {
    for (let i = 0; i < count; i++) {
      const offset = offsets[i]!;
      source.copyPage(i, this.#memory.chunk(block, offset), offset % CHUNK_BYTES);
    }
  }

  clear(block: number, offsets: Float64Array, first: number, end: number): void {
    for (let i = first, run = 0; i < end; i += run) {
      run = runLength(offsets, i, end, this.#pageSize);
      this.#memory.clearPages(block, offsets[i]!, run);
    }
  }
}

/** Memory of its own, from which neighbours are written together. */
class FileTarget implements PageTarget {
  readonly #file: FileView;
  readonly #pages = alignedBuffer(MULTIFD_PACKET_PAGES_BYTES);
  readonly #address = addressOf(this.#pages);

  constructor(file: FileView) {
    this.#file = file;
  }

  addressOf(_block: number, index: number): number {
    return this.#address + index * this.#file.ram.pageSize;
  }

  placed(block: number, offsets: Float64Array, count: number): void {
    const { pageSize } = this.#file.ram;
    for (let i = 0, run = 0; i < count; i += run) {
      run = runLength(offsets, i, count, pageSize);
      this.#file.write(block, offsets[i]!, this.#address + i * pageSize, run * pageSize);
    }
  }

  /** Straight from where they are, unless the file is picky about memory. */
  take(source: PageSource, block: number, offsets: Float64Array, count: number): void {
    const { pageSize, direct } = this.#file.ram;
    if (direct) {
      for (let i = 0; i < count; i++) source.copyPage(i, this.#pages, i * pageSize);
      this.placed(block, offsets, count);
      return;
    }
    for (let i = 0, next = 0; i < count; i = next) {
      const address = source.addressAt(i);
      const offset = offsets[i]!;
      let length = 0;
      do {
        next++;
        length += pageSize;
      } while (next < count && offsets[next] === offset + length && source.addressAt(next) === address + length);
      this.#file.write(block, offset, address, length);
    }
  }

  clear(block: number, offsets: Float64Array, first: number, end: number): void {
    for (let i = first; i < end; i++) this.#file.clear(block, offsets[i]!);
  }
}
