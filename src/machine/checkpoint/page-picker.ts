import { readSync } from 'node:fs';
import { testBit } from '../../base/index.ts';
import type { PageSource, PageWindow } from '../machine.ts';
import { ioError } from './errors.ts';
import type { BlockPages } from './page-reader.ts';

/** Bytes of the first read at a place, and of one where the read before it ended: who goes on there is likely to go on. */
const FIRST_BYTES = 8 * 1024;
const WINDOW_BYTES = 64 * 1024;

/**
 * Single pages of the file that somebody waits for. They are read at once, without a turn of the event loop: from the page cache that takes
 * microseconds, and from a disk nothing else is worth doing meanwhile.
 */
export class PagePicker implements PageSource {
  readonly #path: string;
  readonly #fd: number;
  readonly #blocks: readonly BlockPages[];
  readonly #pageSize: number;
  readonly #memory = Buffer.from(new ArrayBuffer(WINDOW_BYTES));
  readonly #window: PageWindow = { bytes: this.#memory, firstPage: 0, pageCount: 0 };
  #block = -1;

  /** `fd` stays the caller's. `path` is for messages. */
  constructor(path: string, fd: number, blocks: readonly BlockPages[], pageSize: number) {
    this.#path = path;
    this.#fd = fd;
    this.#blocks = blocks;
    this.#pageSize = pageSize;
  }

  /** Throws CHECKPOINT_IO. */
  window(block: number, page: number): PageWindow {
    const window = this.#window;
    const { firstPage, pageCount } = window;
    if (block !== this.#block || page < firstPage || page >= firstPage + pageCount) this.#load(block, page);
    return window;
  }

  #load(block: number, page: number): void {
    const { pageCount, pagesOffset, bitmap } = this.#blocks[block]!;
    const window = this.#window;
    const goesOn = block === this.#block && page === window.firstPage + window.pageCount;
    this.#block = -1;
    const pages = Math.max(1, (goesOn ? WINDOW_BYTES : FIRST_BYTES) / this.#pageSize);
    window.firstPage = page - (page % pages);
    window.pageCount = Math.min(pages, pageCount - window.firstPage);
    window.bytes = this.#memory.subarray(0, window.pageCount * this.#pageSize);
    // Behind the last stored page the file may end.
    const read = this.#readFrom(pagesOffset + window.firstPage * this.#pageSize);
    window.bytes.fill(0, read);
    for (let i = 0; i < window.pageCount; i++) {
      if (!testBit(bitmap, window.firstPage + i)) window.bytes.fill(0, i * this.#pageSize, (i + 1) * this.#pageSize);
      else if ((i + 1) * this.#pageSize > read) throw this.#failed(Object.assign(new Error('EOF'), { code: 'EOF' }));
    }
    this.#block = block;
  }

  #readFrom(position: number): number {
    const into = this.#window.bytes;
    let done = 0;
    try {
      while (done < into.length) {
        const count = readSync(this.#fd, into, done, into.length - done, position + done);
        if (count === 0) break;
        done += count;
      }
    } catch (error) {
      throw this.#failed(error);
    }
    return done;
  }

  #failed(error: unknown): Error {
    return ioError(this.#path, 'read', error);
  }
}
