/**
 * A saving session: gives the stream in pieces of any size. Pages go out as they are when they are copied; one that changes while
 * it is half out has its bit set again and goes once more.
 */
import { clearRange, countBits, fillBitmap, nextClearBit, nextSetBit, popcount32, setRange } from '../../base/index.ts';
import { VF_PAGE_BYTES } from './options.ts';
import {
  encodeRecord,
  encodeStreamHeader,
  HEADER_BYTES,
  RECORD,
  RECORD_BYTES,
  REGISTERS_BYTES,
} from './stream-format.ts';
import type { VfState } from './vf-state.ts';

/** Pages in one record. */
const RUN_PAGES_MAX = 256;
const NOTHING = Buffer.alloc(0);

export class Saver {
  readonly #state: VfState;
  readonly #initialPages: number;
  /** Bytes that are due before the pages of the run. */
  #head: Buffer;
  /** What of the state is due, bytes. */
  #at = 0;
  #end = 0;
  /** Pages of the initial part that have not been begun. */
  #initialPage = 0;
  /** What is due belongs to the initial part. */
  #initial = true;
  /** Where the search for changed pages goes on. */
  #next = 0;
  #records = 0;
  #stopped: 'no' | 'yes' | 'ended' = 'no';
  #renewed = false;
  #registers: () => Buffer;

  /** `registers`: called once, when the device has stopped. */
  constructor(state: VfState, initialBytes: number, dmaBytes: number, registers: () => Buffer) {
    this.#state = state;
    this.#initialPages = initialBytes / VF_PAGE_BYTES;
    this.#registers = registers;
    const stateBytes = state.bytes.length;
    this.#head = encodeStreamHeader({ seed: state.seed, stateBytes, initialBytes, dmaBytes });
    fillBitmap(state.changed, state.pageCount);
  }

  /** Its initial part is new: all of it comes once more, before what else has changed. Only while the device runs. */
  renew(): void {
    setRange(this.#state.changed, 0, this.#initialPages);
    this.#initialPage = 0;
    this.#initial = true;
    this.#renewed = true;
  }

  /** Whether it was renewed since the last call. */
  takeRenewed(): boolean {
    const renewed = this.#renewed;
    this.#renewed = false;
    return renewed;
  }

  /** The device changes no more: from now on everything can be read, to the end. */
  stop(): void {
    if (this.#stopped === 'no') this.#stopped = 'yes';
  }

  /** It runs again after all (the arc was undone); nothing was read since `stop`. */
  unstop(): void {
    if (this.#stopped === 'yes') this.#stopped = 'no';
  }

  /** Puts the next bytes into `into`; 0: there are none now, or (stopped) none at all any more. */
  read(into: Buffer): number {
    let done = 0;
    while (done < into.length) {
      if (this.#head.length > 0) {
        const count = this.#head.copy(into, done);
        this.#head = this.#head.subarray(count);
        done += count;
      } else if (this.#at < this.#end) {
        const count = this.#state.bytes.copy(into, done, this.#at, this.#end);
        this.#at += count;
        done += count;
      } else if (!this.#begin()) break;
    }
    return done;
  }

  /** Of the part that comes first; records counted, so that it only falls, unless it is renewed. */
  get initialBytes(): number {
    const left = runsBytes(this.#initialPages - this.#initialPage);
    return this.#initial ? left + this.#due : left;
  }

  /** Of what has changed since it was read, as far as it can be read while the device runs. */
  get dirtyBytes(): number {
    const due = this.#initial ? 0 : this.#due;
    return due + countBelow(this.#state.changed, this.#initialPage) * VF_PAGE_BYTES;
  }

  /** All that is left if the device stops now. */
  get stopBytes(): number {
    return this.#due + countBits(this.#state.changed) * VF_PAGE_BYTES + 2 * RECORD_BYTES + REGISTERS_BYTES;
  }

  get #due(): number {
    return this.#head.length + this.#end - this.#at;
  }

  /** The next record, if there is one. */
  #begin(): boolean {
    const { changed, pageCount } = this.#state;
    if (this.#initialPage < this.#initialPages) {
      const first = this.#initialPage;
      const count = Math.min(RUN_PAGES_MAX, this.#initialPages - first);
      this.#initialPage += count;
      this.#pages(first, count);
      return true;
    }
    this.#initial = false;
    const limit = this.#stopped === 'no' ? this.#initialPages : pageCount;
    let first = nextSetBit(changed, Math.min(this.#next, limit), limit);
    if (first < 0) first = nextSetBit(changed, 0, limit);
    if (first >= 0) {
      const count = Math.min(nextClearBit(changed, first, limit) - first, RUN_PAGES_MAX);
      this.#next = first + count;
      this.#pages(first, count);
      return true;
    }
    if (this.#stopped !== 'yes') return false;
    this.#stopped = 'ended';
    this.#head = Buffer.concat([
      encodeRecord(RECORD.REGISTERS, 0, 0, this.#records++),
      this.#registers(),
      encodeRecord(RECORD.END, 0, 0, this.#records++),
    ]);
    this.#registers = () => NOTHING;
    return true;
  }

  #pages(first: number, count: number): void {
    clearRange(this.#state.changed, first, count);
    this.#head = encodeRecord(RECORD.PAGES, first, count, this.#records++);
    this.#at = first * VF_PAGE_BYTES;
    this.#end = this.#at + count * VF_PAGE_BYTES;
  }
}

/** What a fresh session would have, stopped at once. */
export function wholeStreamBytes(stateBytes: number): number {
  return HEADER_BYTES + runsBytes(stateBytes / VF_PAGE_BYTES) + 2 * RECORD_BYTES + REGISTERS_BYTES;
}

/** Neighbouring pages in as few records as possible. */
function runsBytes(pages: number): number {
  return pages * VF_PAGE_BYTES + Math.ceil(pages / RUN_PAGES_MAX) * RECORD_BYTES;
}

/** Set bits below `bit`. */
function countBelow(map: Uint32Array, bit: number): number {
  let count = 0;
  for (let word = 0; word < bit >>> 5; word++) count += popcount32(map[word]!);
  if ((bit & 31) !== 0) count += popcount32(map[bit >>> 5]! & ((1 << (bit & 31)) - 1));
  return count;
}
