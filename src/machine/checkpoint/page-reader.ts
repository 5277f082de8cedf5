import { nextClearBit, nextSetBit } from '../../base/index.ts';
import type { PageSource, PageWindow } from '../machine.ts';

/** Bytes of one read at most, and of the memory for each of the two windows. */
const WINDOW_BYTES = 2 * 1024 * 1024;
/** The first read at a new place: whoever jumps there may be gone soon. Each further one is twice as long. */
const FIRST_BYTES = 64 * 1024;

/** One block's pages in the file. */
export interface BlockPages {
  readonly pageCount: number;
  /** File offset of the first page; 0 for a block that is not in the file. */
  readonly pagesOffset: number;
  /** Pages that may be other than zero. */
  readonly bitmap: Uint32Array<SharedArrayBuffer>;
}

/** Reads bytes of the file at a position; throws if they are not there. */
export type ReadPages = (position: number, into: Buffer) => Promise<void>;

interface Loaded {
  readonly memory: Buffer;
  readonly window: PageWindow;
  block: number;
  /** Undefined: nothing is in it. */
  ready: Promise<void> | undefined;
}

/**
 * Windows of a file's pages: one that is being sent from, and the next one, which is read meanwhile. Pages that are not in the bitmap
 * are zero, whatever the file has at their place.
 */
export class PageReader implements PageSource {
  readonly #blocks: readonly BlockPages[];
  readonly #pageSize: number;
  readonly #pagesMax: number;
  readonly #pagesFirst: number;
  /** Of the next window. */
  #pages: number;
  readonly #read: ReadPages;
  #current: Loaded;
  #ahead: Loaded;

  constructor(blocks: readonly BlockPages[], pageSize: number, read: ReadPages) {
    this.#blocks = blocks;
    this.#pageSize = pageSize;
    this.#pagesMax = WINDOW_BYTES / pageSize;
    this.#pagesFirst = FIRST_BYTES / pageSize;
    this.#pages = this.#pagesFirst;
    this.#read = read;
    this.#current = this.#empty();
    this.#ahead = this.#empty();
  }

  window(block: number, page: number): PageWindow | Promise<PageWindow> {
    if (this.#holds(this.#current, block, page)) return this.#current.window;
    return this.#next(block, page);
  }

  /** Resolves when no read is under way. */
  async idle(): Promise<void> {
    await Promise.allSettled([this.#current.ready, this.#ahead.ready]);
  }

  async #next(block: number, page: number): Promise<PageWindow> {
    const wanted = this.#ahead;
    if (!this.#holds(wanted, block, page)) {
      // The read under way fills memory that is wanted for something else.
      await wanted.ready?.catch(() => {});
      this.#pages = this.#pagesFirst;
      this.#load(wanted, block, page);
    }
    try {
      await wanted.ready;
    } catch (error) {
      wanted.ready = undefined;
      throw error;
    }
    this.#ahead = this.#current;
    this.#current = wanted;
    this.#readAhead();
    return wanted.window;
  }

  /** Starts on the next window, in file order, that has a page to send. */
  #readAhead(): void {
    let { block } = this.#current;
    let page = this.#current.window.firstPage + this.#current.window.pageCount;
    this.#ahead.ready = undefined;
    for (; block < this.#blocks.length; block++, page = 0) {
      const { bitmap, pageCount } = this.#blocks[block]!;
      const next = nextSetBit(bitmap, page, pageCount);
      if (next < 0) continue;
      this.#pages = Math.min(this.#pagesMax, this.#pages * 2);
      this.#load(this.#ahead, block, next);
      return;
    }
  }

  #holds({ window, ready, block: held }: Loaded, block: number, page: number): boolean {
    const { firstPage, pageCount } = window;
    return ready !== undefined && held === block && page >= firstPage && page < firstPage + pageCount;
  }

  #load(into: Loaded, block: number, page: number): void {
    const { pageCount, bitmap, pagesOffset } = this.#blocks[block]!;
    const firstPage = page - (page % this.#pagesFirst);
    const window = into.window;
    into.block = block;
    window.firstPage = firstPage;
    window.pageCount = Math.min(this.#pages, pageCount - firstPage);
    window.bytes = into.memory.subarray(0, window.pageCount * this.#pageSize);
    into.ready = this.#fill(window, bitmap, pagesOffset);
    // Who asks for the window hears of it; until then it is nobody's unhandled failure.
    into.ready.catch(() => {});
  }

  async #fill(window: PageWindow, bitmap: Uint32Array, pagesOffset: number): Promise<void> {
    const pageSize = this.#pageSize;
    const end = window.firstPage + window.pageCount;
    const first = nextSetBit(bitmap, window.firstPage, end);
    if (first < 0) {
      window.bytes.fill(0);
      return;
    }
    const at = (first - window.firstPage) * pageSize;
    await this.#read(pagesOffset + first * pageSize, window.bytes.subarray(at, this.#lastStored(window, bitmap)));
    for (let gap = window.firstPage; gap < end; ) {
      const gapEnd = nextSetBit(bitmap, gap, end);
      const to = gapEnd < 0 ? end : gapEnd;
      window.bytes.fill(0, (gap - window.firstPage) * pageSize, (to - window.firstPage) * pageSize);
      gap = gapEnd < 0 ? end : Math.min(nextClearBit(bitmap, gapEnd, end), end);
    }
  }

  /** End of the last page in the window that the file has, bytes from the window's start. */
  #lastStored(window: PageWindow, bitmap: Uint32Array): number {
    let last = window.pageCount;
    while (nextSetBit(bitmap, window.firstPage + last - 1, window.firstPage + last) < 0) last--;
    return last * this.#pageSize;
  }

  #empty(): Loaded {
    const memory = Buffer.from(new ArrayBuffer(WINDOW_BYTES));
    return { memory, window: { bytes: memory, firstPage: 0, pageCount: 0 }, block: -1, ready: undefined };
  }
}
