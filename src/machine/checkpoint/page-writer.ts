import { fdatasync, readSync, writeSync } from 'node:fs';
import { getSystemErrorName } from 'node:util';
import { Worker } from 'node:worker_threads';
import { assert, clearSharedBit, newSharedBitmap, setSharedBit, testBit } from '../../base/index.ts';
import type { IncomingRam } from '../machine.ts';
import type { FileRam } from '../shared-ram.ts';
import { checkpointError, ioError } from './errors.ts';
import { type FromPageWriter, newPageQueue, type PageQueue, type PageWriterStart, STOP, Word } from './page-queue.ts';

/** Room for pages that wait to be written, bytes. More than a batch of whole pages brings; small enough for the processor's cache. */
const QUEUE_BYTES = 8 * 1024 * 1024;
/** The writer is woken for so many bytes: waking costs as much as copying a few pages, and large writes are cheaper. */
const WAKE_BYTES = 1024 * 1024;
/** `page` waits at most this long for room without any progress, ms. */
const STALL_MS = 60_000;
/** After so many bytes the disk is told to begin: what is left for the last sync, which the stopped guest waits for, stays small. */
const SYNC_BYTES = 64 * 1024 * 1024;
/** Table that says quickly that a page is not in the queue. */
const FILTER_SIZE = 16_384;

/** One block's place in the file. */
export interface PageRegion {
  readonly idstr: string;
  /** Bytes. */
  readonly usedLength: number;
  /** File offset of the block's first page, bytes. */
  readonly pagesOffset: number;
}

/**
 * Takes pages of RAM on the event loop and gets them written by a thread of its own. Once the RAM is shared there is no such thread: the
 * threads that it is shared with bring the pages, and a page that comes here nevertheless is written at once, in its turn.
 */
export class PageWriter implements IncomingRam {
  /** One for each block: pages that are not zero. In shared memory, as `touched`. */
  readonly bitmaps: readonly Uint32Array<SharedArrayBuffer>[];
  /** One word for each block: not 0 once any page of it has come, zero pages included. */
  readonly #touched: Int32Array<SharedArrayBuffer>;
  readonly #path: string;
  readonly #fd: number;
  readonly #regions: readonly PageRegion[];
  readonly #openForThreads: () => { readonly fd: number; readonly direct: boolean };
  #isShared = false;
  readonly #queue: PageQueue;
  readonly #data: Buffer;
  /**
   * A page in between: into shared memory V8 copies byte by byte unless both sides have the same alignment, and pages lie in a stream at any
   * place. Two fast copies take a third of the time.
   */
  readonly #aligned: Buffer;
  readonly #slots: number;
  /** Settles when the writing thread has ended; undefined before it is needed. */
  #ended: Promise<void> | undefined;
  /** Pages put into the ring so far, those of them that the writer knows of, and those known to be written. */
  #staged = 0;
  #published = 0;
  #reaped = 0;
  readonly #wakePages: number;
  /** How many pages between #reaped and #staged have this hash. */
  readonly #filter = new Uint16Array(FILTER_SIZE);
  #unsyncedBytes = 0;
  #syncing: Promise<void> | undefined;
  #failure: Error | undefined;
  #stopping = false;
  #waiters: { resolve(): void; reject(error: Error): void }[] = [];

  /**
   * `fd`: open for reading and writing; to be closed only after `end` or `abandon`. `path` is for messages. `openForThreads`: what threads of
   * others shall write by.
   */
  constructor(
    path: string,
    fd: number,
    regions: readonly PageRegion[],
    pageSize: number,
    openForThreads: () => { readonly fd: number; readonly direct: boolean },
  ) {
    this.#path = path;
    this.#fd = fd;
    this.#regions = regions;
    this.#openForThreads = openForThreads;
    this.#queue = newPageQueue(QUEUE_BYTES, pageSize);
    this.#data = Buffer.from(this.#queue.data.buffer);
    this.#aligned = Buffer.from(new ArrayBuffer(pageSize));
    this.#slots = this.#queue.offsets.length;
    this.#wakePages = WAKE_BYTES / pageSize;
    this.bitmaps = regions.map(({ usedLength }) => newSharedBitmap(usedLength / pageSize));
    this.#touched = new Int32Array(new SharedArrayBuffer(regions.length * 4));
  }

  /** Any page of the block has come. */
  isTouched(block: number): boolean {
    return Atomics.load(this.#touched, block) !== 0;
  }

  share(): FileRam {
    assert(this.#staged === 0, 'RAM is shared before its first page has come');
    this.#isShared = true;
    const blocks = this.#regions.map((region, index) => ({ ...region, bitmap: this.bitmaps[index]!.buffer }));
    const { pageSize } = this.#queue;
    return {
      kind: 'file',
      path: this.#path,
      pageSize,
      ...this.#openForThreads(),
      blocks,
      touched: this.#touched.buffer,
    };
  }

  page(block: number, offset: number, from: Buffer, at: number): void {
    if (this.#isShared) {
      this.#writeNow(block, offset, from, at);
      return;
    }
    const { pageSize, offsets } = this.#queue;
    if (((this.#staged - this.#reaped) | 0) === this.#slots) this.#waitForRoom();
    const fileOffset = this.#regions[block]!.pagesOffset + offset;
    const slot = (this.#staged & 0x7fffffff) % this.#slots;
    from.copy(this.#aligned, 0, at, at + pageSize);
    this.#aligned.copy(this.#data, slot * pageSize);
    offsets[slot] = fileOffset;
    this.#filter[(fileOffset / pageSize) % FILTER_SIZE]!++;
    setSharedBit(this.bitmaps[block]!, offset / pageSize);
    this.#touch(block);
    this.#staged = (this.#staged + 1) | 0;
    if (((this.#staged - this.#published) | 0) === this.#wakePages) this.#publish();
  }

  #writeNow(block: number, offset: number, from: Buffer, at: number): void {
    const { pageSize } = this.#queue;
    const fileOffset = this.#regions[block]!.pagesOffset + offset;
    try {
      for (let done = 0; done < pageSize; ) {
        done += writeSync(this.#fd, from, at + done, pageSize - done, fileOffset + done);
      }
    } catch (error) {
      throw ioError(this.#path, 'write pages', error);
    }
    setSharedBit(this.bitmaps[block]!, offset / pageSize);
    this.#touch(block);
  }

  zero(block: number, offset: number): void {
    clearSharedBit(this.bitmaps[block]!, offset / this.#queue.pageSize);
    this.#touch(block);
  }

  #touch(block: number): void {
    if (this.#touched[block] === 0) Atomics.store(this.#touched, block, 1);
  }

  read(block: number, offset: number, into: Buffer): void {
    const { pageSize, offsets } = this.#queue;
    if (!testBit(this.bitmaps[block]!, offset / pageSize)) {
      into.fill(0, 0, pageSize);
      return;
    }
    const fileOffset = this.#regions[block]!.pagesOffset + offset;
    if (this.#filter[(fileOffset / pageSize) % FILTER_SIZE]! > 0) {
      // The newest version counts.
      for (let n = this.#staged; n !== this.#reaped; ) {
        n = (n - 1) | 0;
        const slot = (n & 0x7fffffff) % this.#slots;
        if (offsets[slot] !== fileOffset) continue;
        this.#data.copy(into, 0, slot * pageSize, (slot + 1) * pageSize);
        return;
      }
    }
    const count = readSync(this.#fd, into, 0, pageSize, fileOffset);
    assert(count === pageSize, 'a page that was written can be read');
  }

  /** Resolves when half of the room is free; undefined if it is. Throws what the writer ran into. */
  drain(): Promise<void> | undefined {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const half = this.#slots / 2;
    return ((this.#staged - this.#reaped) | 0) <= half ? undefined : this.#reach(half);
  }

  /** Resolves when every page is in the file and the thread has ended. */
  async end(): Promise<void> {
    await this.#reach(0);
    this.#stop(STOP.WHEN_EMPTY);
    await Promise.all([this.#ended, this.#syncing]);
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Ends the thread, written or not. Never throws. */
  async abandon(): Promise<void> {
    this.#stop(STOP.NOW);
    await Promise.all([this.#ended, this.#syncing]);
    this.#fail(checkpointError({ code: 'CHECKPOINT_CLOSED', path: this.#path }, 'the checkpoint was given up'));
  }

  #publish(): void {
    if (this.#published === this.#staged) {
      this.#reap();
      return;
    }
    if (this.#ended === undefined) this.#startThread();
    const { control } = this.#queue;
    this.#published = this.#staged;
    Atomics.store(control, Word.PUBLISHED, this.#staged);
    this.#signal();
    this.#reap();
  }

  #startThread(): void {
    const thread = new Worker(new URL('./page-writer-thread.js', import.meta.url), {
      name: 'page-writer',
      workerData: { queue: this.#queue, fd: this.#fd } satisfies PageWriterStart,
      execArgv: [],
      resourceLimits: { maxYoungGenerationSizeMb: 1, maxOldGenerationSizeMb: 16 },
    });
    thread.on('message', (message: FromPageWriter) => this.#hear(message));
    thread.on('error', (error) => this.#fail(ioError(this.#path, 'write pages', error)));
    this.#ended = new Promise((resolve) => {
      thread.once('exit', () => {
        if (!this.#stopping) this.#fail(ioError(this.#path, 'write pages', new Error('the writing thread ended')));
        resolve();
      });
    });
  }

  #signal(): void {
    const { control } = this.#queue;
    Atomics.add(control, Word.SIGNAL, 1);
    Atomics.notify(control, Word.SIGNAL);
  }

  /** Forgets pages that are in the file by now. */
  #reap(): void {
    const { control, offsets, pageSize } = this.#queue;
    const written = Atomics.load(control, Word.WRITTEN);
    for (; this.#reaped !== written; this.#reaped = (this.#reaped + 1) | 0) {
      const slot = (this.#reaped & 0x7fffffff) % this.#slots;
      this.#filter[(offsets[slot]! / pageSize) % FILTER_SIZE]!--;
      this.#unsyncedBytes += pageSize;
    }
    if (this.#unsyncedBytes >= SYNC_BYTES) this.#sync();
  }

  /** One at a time. Its error counts: the kernel tells a descriptor only once, so the last sync would not hear of it. */
  #sync(): void {
    if (this.#syncing !== undefined) return;
    this.#unsyncedBytes = 0;
    this.#syncing = new Promise((resolve) => {
      fdatasync(this.#fd, (error) => {
        if (error !== null) this.#fail(ioError(this.#path, 'write pages', error));
        this.#syncing = undefined;
        resolve();
      });
    });
  }

  /** A sink cannot wait on a promise, so when a batch overflows the queue the event loop waits with it. */
  #waitForRoom(): void {
    const { control } = this.#queue;
    this.#publish();
    while (((this.#staged - this.#reaped) | 0) === this.#slots) {
      if (Atomics.load(control, Word.FAILED) !== 0) {
        this.#hear('failed');
        throw this.#failure;
      }
      if (Atomics.wait(control, Word.WRITTEN, this.#reaped, STALL_MS) === 'timed-out') {
        throw ioError(this.#path, 'write pages', Object.assign(new Error('no progress'), { code: 'ETIMEDOUT' }));
      }
      this.#reap();
    }
  }

  /** Resolves when at most `pages` wait to be written. All of them are published. */
  async #reach(pages: number): Promise<void> {
    const { control } = this.#queue;
    this.#publish();
    for (;;) {
      this.#reap();
      if (this.#failure !== undefined) throw this.#failure;
      if (((this.#staged - this.#reaped) | 0) <= pages) return;
      const told = new Promise<void>((resolve, reject) => {
        this.#waiters.push({ resolve, reject });
      });
      Atomics.store(control, Word.WANTED, pages);
      // The writer looks at WANTED only after a write: had it just done the last one, nobody would tell.
      if (((this.#staged - Atomics.load(control, Word.WRITTEN)) | 0) <= pages) this.#hear('low');
      await told;
    }
  }

  #hear(message: FromPageWriter): void {
    if (message === 'failed') {
      const errno = Atomics.load(this.#queue.control, Word.FAILED);
      const code = errno < 0 ? getSystemErrorName(errno) : 'unknown';
      this.#fail(ioError(this.#path, 'write pages', Object.assign(new Error(code), { code })));
      return;
    }
    for (const waiter of this.#waiters.splice(0)) waiter.resolve();
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    for (const waiter of this.#waiters.splice(0)) waiter.reject(this.#failure);
  }

  #stop(how: number): void {
    this.#stopping = true;
    Atomics.store(this.#queue.control, Word.STOP, how);
    this.#signal();
  }
}
