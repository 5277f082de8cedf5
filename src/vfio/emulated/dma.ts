/** How an emulated VF writes to guest memory, and its own log of that. */
import { bitmapWords, clearBit, keyOf, placeOf, setBit, testBit, writtenWord } from '../../base/index.ts';
import type { DeviceMemory } from '../../machine/index.ts';
import type { DmaRange } from '../device.ts';
import { checkLogRanges, checkLogReport, DmaLogError } from '../dma-log-rules.ts';
import { ERRNO } from '../errors.ts';
import { VF_PAGE_BYTES } from './options.ts';
import { pageCounts, pickPage, type VfVerdict, verifyPages } from './vf-state.ts';

/** Guest memory that a device in another thread can reach by itself, and the machine's log of it. */
export type SharedWindow = DeviceMemory;

/** A part of it. */
export function windowPart(window: SharedWindow, at: number, length: number): SharedWindow {
  return {
    ...window,
    iova: window.iova + at,
    length,
    byteOffset: window.byteOffset + at,
    firstBit: window.firstBit + at / VF_PAGE_BYTES,
  };
}

/** Guest memory as the device's program uses it. Stores are posted: they are done when `drained` resolves. */
export interface DmaPort {
  /** Two words of the page at `iova`: word 0, and the word at `place`. */
  storePage(iova: number, version: number, place: number, word: number): void;
  /** Resolves when all stores are done; rejects never: what memory refuses is counted. */
  drained(): Promise<void>;
  readonly failures: number;
}

/** Nobody has given the device any memory yet. */
export const NO_DMA: DmaPort = { storePage: () => {}, drained: () => Promise.resolve(), failures: 0 };

export class SharedDma implements DmaPort {
  readonly #window: SharedWindow;
  readonly #words: Int32Array;
  readonly #log: Int32Array | undefined;
  failures = 0;

  /** `marks`: the machine's own log is told of every store; otherwise it is asked of the device. */
  constructor(window: SharedWindow, marks: boolean) {
    this.#window = window;
    this.#words = new Int32Array(window.memory, window.byteOffset, window.length / 4);
    this.#log = marks ? new Int32Array(window.log) : undefined;
  }

  storePage(iova: number, version: number, place: number, word: number): void {
    const at = iova - this.#window.iova;
    if (at < 0 || at + VF_PAGE_BYTES > this.#window.length) {
      this.failures++;
      return;
    }
    this.#words[at / 4] = version;
    this.#words[at / 4 + place] = word;
    if (this.#log === undefined) return;
    // Bytes first, then the bit: the dirty log's argument.
    const bit = this.#window.firstBit + at / VF_PAGE_BYTES;
    Atomics.or(this.#log, bit >>> 5, 1 << (bit & 31));
  }

  drained(): Promise<void> {
    return Promise.resolve();
  }

  /** All stores of `operations` operations, and nothing else, are in memory (as far as there is any). */
  verify(seed: number, operations: number, workingPages: number): VfVerdict {
    const pageCount = Math.min(workingPages, this.#window.length / VF_PAGE_BYTES);
    return verifyPages(this.#words, seed, operations, { pageCount, workingPages, filled: false });
  }
}

/** The device's program for guest memory: the same as for its state, on pages that begin as zero. */
export class DmaProgram {
  readonly #pageCount: number;
  readonly #base: number;
  seed = 0;
  /** How often each page was written; follows from `operations`, so it is not part of the state. */
  #versions: Int32Array;
  operations = 0;

  /** `iova`: of the first page. */
  constructor(iova: number, bytes: number, seed: number) {
    this.#base = iova;
    this.#pageCount = bytes / VF_PAGE_BYTES;
    this.#versions = new Int32Array(this.#pageCount);
    this.restart(seed, 0);
  }

  restart(deviceSeed: number, operations: number): void {
    this.seed = dmaSeed(deviceSeed);
    this.operations = operations;
    this.#versions = pageCounts(this.seed, operations, this.#pageCount);
  }

  run(count: number, port: DmaPort, log: DmaLog): void {
    if (this.#pageCount === 0) return;
    for (let k = this.operations; k < this.operations + count; k++) {
      const page = pickPage(this.seed, k, this.#pageCount);
      const version = ++this.#versions[page]!;
      const key = keyOf(this.seed, page);
      port.storePage(this.#base + page * VF_PAGE_BYTES, version, placeOf(key, version), writtenWord(key, version));
      log.mark(page);
    }
    this.operations += count;
  }
}

export function dmaSeed(deviceSeed: number): number {
  return (deviceSeed ^ 0x3c6e_f372) >>> 0;
}

/** DMA logging: a bit for each page that the device can write, and the rules of the uAPI. */
export class DmaLog {
  readonly #base: number;
  readonly #pageCount: number;
  readonly #map: Uint32Array;
  #ranges: readonly DmaRange[] | undefined;

  constructor(iova: number, bytes: number) {
    this.#base = iova;
    this.#pageCount = bytes / VF_PAGE_BYTES;
    this.#map = new Uint32Array(bitmapWords(this.#pageCount));
  }

  mark(page: number): void {
    if (this.#ranges !== undefined) setBit(this.#map, page);
  }

  /** Returns the page size of the log. */
  start(pageSize: number, ranges: readonly DmaRange[]): number {
    if (this.#ranges !== undefined) throw new DmaLogError(ERRNO.EINVAL, 'it logs already');
    const sorted = checkLogRanges(pageSize, ranges);
    this.#map.fill(0);
    this.#ranges = sorted;
    return VF_PAGE_BYTES;
  }

  stop(): void {
    if (this.#ranges === undefined) throw new DmaLogError(ERRNO.EINVAL, 'it does not log');
    this.#ranges = undefined;
  }

  /** As `stop`, whether it logs or not. */
  end(): void {
    this.#ranges = undefined;
  }

  /** Moves the bits of the range into `into`, one for each `pageSize` bytes. */
  report(range: DmaRange, pageSize: number, into: Uint32Array): void {
    if (this.#ranges === undefined) throw new DmaLogError(ERRNO.EINVAL, 'it does not log');
    checkLogReport(range, pageSize, into.length);
    const first = Math.max(0, Math.ceil((range.iova - this.#base) / VF_PAGE_BYTES));
    const last = Math.min(this.#pageCount, Math.floor((range.iova + range.length - this.#base) / VF_PAGE_BYTES));
    for (let page = first; page < last; page++) {
      if (!testBit(this.#map, page)) continue;
      const iova = this.#base + page * VF_PAGE_BYTES;
      clearBit(this.#map, page);
      if (this.#logged(iova)) setBit(into, Math.floor((iova - range.iova) / pageSize));
    }
  }

  #logged(iova: number): boolean {
    return this.#ranges!.some((range) => iova >= range.iova && iova < range.iova + range.length);
  }
}
