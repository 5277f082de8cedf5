/** Where a sending thread has its pages from. */
import { isZeroPage } from '../../base/index.ts';
import type { SharedRam } from '../../machine/index.ts';
import { addressOf, alignedBuffer, type IoVector } from '../../native/index.ts';
import { MULTIFD_PACKET_PAGES_BYTES, multifdPagesMax } from '../../wire/multifd/index.ts';
import { BATCH } from '../batch-ring.ts';
import { FileView } from './file-view.ts';
import { MemoryView } from './memory-view.ts';
import { runLength } from './runs.ts';

/** One batch at a time: `select` it, then have its content. */
export interface PageSource {
  /**
   * Sorts the pages of the batch in `slot` into `offsets` (bytes inside the block): normal pages from the front, zero pages, if they are looked
   * for, behind them. Returns how many are normal. Throws FileFailure.
   */
  select(slot: Uint32Array, findZeroPages: boolean, offsets: Float64Array): number;
  /** The content of the normal pages in their order, without a copy if there is none already. */
  addTo(vector: IoVector): void;
  /** Where the `index`-th normal page is now. It may move before the next `select` no more; guest memory may change, though. */
  addressAt(index: number): number;
  /** That page, copied to `into`: a running guest may write meanwhile, what is copied stays as it is. */
  copyPage(index: number, into: Buffer, at: number): void;
}

export function pageSource(ram: SharedRam): PageSource {
  const pagesMax = multifdPagesMax(ram.pageSize);
  return ram.kind === 'memory'
    ? new MemorySource(new MemoryView(ram), ram.pageSize, pagesMax)
    : new FileSource(new FileView(ram), ram.pageSize, pagesMax);
}

class MemorySource implements PageSource {
  readonly #memory: MemoryView;
  readonly #pageSize: number;
  readonly #zeros: Float64Array;
  #offsets: Float64Array;
  #block = 0;
  #normal = 0;

  constructor(memory: MemoryView, pageSize: number, pagesMax: number) {
    this.#memory = memory;
    this.#pageSize = pageSize;
    this.#zeros = new Float64Array(pagesMax);
    this.#offsets = this.#zeros;
  }

  select(slot: Uint32Array, findZeroPages: boolean, offsets: Float64Array): number {
    const block = slot[BATCH.BLOCK]!;
    const count = slot[BATCH.COUNT]!;
    const memory = this.#memory;
    const pageSize = this.#pageSize;
    const zeros = this.#zeros;
    let normal = 0;
    let zero = 0;
    for (let i = 0; i < count; ) {
      const page = slot[BATCH.PAGES + i]!;
      // A store that comes between the look and the sending has set the page's bit in the dirty log: it is sent again.
      let run = 0;
      if (findZeroPages) {
        while (i + run < count && slot[BATCH.PAGES + i + run] === page + run) {
          if (!memory.mayBeZero(block, (page + run) * pageSize)) break;
          run++;
        }
        if (run > 0) run = memory.zeroPages(block, page * pageSize, run);
      }
      for (let k = 0; k < run; k++) zeros[zero++] = (page + k) * pageSize;
      if (run === 0) offsets[normal++] = page * pageSize;
      i += Math.max(run, 1);
    }
    for (let i = 0; i < zero; i++) offsets[normal + i] = zeros[i]!;
    this.#block = block;
    this.#normal = normal;
    this.#offsets = offsets;
    return normal;
  }

  /** Neighbours in guest memory are one piece. */
  addTo(vector: IoVector): void {
    const pageSize = this.#pageSize;
    const offsets = this.#offsets;
    const base = this.#memory.addresses[this.#block]!;
    for (let i = 0, count = 0; i < this.#normal; i += count) {
      count = runLength(offsets, i, this.#normal, pageSize);
      vector.push(base + offsets[i]!, count * pageSize);
    }
  }

  addressAt(index: number): number {
    return this.#memory.addresses[this.#block]! + this.#offsets[index]!;
  }

  copyPage(index: number, into: Buffer, at: number): void {
    this.#memory.copyPage(this.#block, this.#offsets[index]!, into, at);
  }
}

/** Reads the pages of a batch into memory of its own, neighbours together. What the file does not have is zero, unseen. */
class FileSource implements PageSource {
  readonly #file: FileView;
  readonly #pageSize: number;
  readonly #zeroPage: Buffer;
  readonly #pages = alignedBuffer(MULTIFD_PACKET_PAGES_BYTES);
  readonly #address = addressOf(this.#pages);
  readonly #zeros: Float64Array;
  /** Where in `pages` each normal page is, in pages. */
  readonly #places: Uint16Array;
  #normal = 0;

  constructor(file: FileView, pageSize: number, pagesMax: number) {
    this.#file = file;
    this.#pageSize = pageSize;
    this.#zeroPage = Buffer.alloc(pageSize);
    this.#zeros = new Float64Array(pagesMax);
    this.#places = new Uint16Array(pagesMax);
  }

  select(slot: Uint32Array, findZeroPages: boolean, offsets: Float64Array): number {
    const block = slot[BATCH.BLOCK]!;
    const count = slot[BATCH.COUNT]!;
    const pageSize = this.#pageSize;
    const zeros = this.#zeros;
    let stored = 0;
    let zero = 0;
    for (let i = 0; i < count; i++) {
      const offset = slot[BATCH.PAGES + i]! * pageSize;
      if (this.#file.has(block, offset)) offsets[stored++] = offset;
      else zeros[zero++] = offset;
    }
    for (let i = 0, run = 0; i < stored; i += run) {
      run = runLength(offsets, i, stored, pageSize);
      this.#file.read(block, offsets[i]!, this.#address + i * pageSize, run * pageSize);
    }
    let normal = 0;
    for (let i = 0; i < stored; i++) {
      if (findZeroPages && this.#isZero(i)) zeros[zero++] = offsets[i]!;
      else {
        offsets[normal] = offsets[i]!;
        this.#places[normal++] = i;
      }
    }
    if (findZeroPages) for (let i = 0; i < zero; i++) offsets[normal + i] = zeros[i]!;
    else {
      this.#pages.fill(0, stored * pageSize, count * pageSize);
      for (let i = 0; i < zero; i++) {
        offsets[normal] = zeros[i]!;
        this.#places[normal++] = stored + i;
      }
    }
    this.#normal = normal;
    return normal;
  }

  addTo(vector: IoVector): void {
    const pageSize = this.#pageSize;
    let behind = -1;
    for (let i = 0; i < this.#normal; i++) {
      const place = this.#places[i]!;
      if (place === behind) vector.extend(pageSize);
      else vector.push(this.#address + place * pageSize, pageSize);
      behind = place + 1;
    }
  }

  addressAt(index: number): number {
    return this.#address + this.#places[index]! * this.#pageSize;
  }

  copyPage(index: number, into: Buffer, at: number): void {
    const from = this.#places[index]! * this.#pageSize;
    this.#pages.copy(into, at, from, from + this.#pageSize);
  }

  /** Whoever wrote the file may not have looked. */
  #isZero(place: number): boolean {
    return isZeroPage(this.#pages, place * this.#pageSize, this.#zeroPage);
  }
}
