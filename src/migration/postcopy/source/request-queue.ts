import { blockOfKey, clearBit, newBitmap, pageKey, pageOfKey, setBit, testBit } from '../../../base/index.ts';
import { badPageRequest } from '../../errors.ts';
import type { Place, RemainingRam } from './remaining-ram.ts';

/** All tiers. */
const ANY = -1;

/**
 * Host pages that the destination has asked for and that are still to be sent, in the order asked. A page that is waiting already, or no
 * longer to be sent, is not queued (qemu-wire 6.4: such requests are ordinary), so there are never more entries than pages. Where some must wait for
 * others of their kind, the blocks are in tiers: whoever takes pages may leave out whole tiers.
 */
export class RequestQueue {
  readonly #ram: RemainingRam;
  readonly #targetPageSize: number;
  /** By block. */
  readonly #tiers: readonly number[];
  /** By tier. */
  readonly #waiting: readonly Fifo[];
  /** By block: host pages (their first target page) that are in the queue. */
  readonly #queued: readonly Uint32Array[];
  /** The block that the last request named; a request without a name means it. -1: none has. */
  #named = -1;
  /** Entries so far. */
  #count = 0;
  #length = 0;

  /** `tiers`: of each block, from 0; default: all the same. */
  constructor(ram: RemainingRam, targetPageSize: number, tiers: readonly number[] = ram.blocks.map(() => 0)) {
    this.#ram = ram;
    this.#targetPageSize = targetPageSize;
    this.#tiers = tiers;
    this.#waiting = Array.from({ length: Math.max(0, ...tiers) + 1 }, () => new Fifo());
    this.#queued = ram.blocks.map(({ pageCount }) => newBitmap(pageCount));
  }

  get length(): number {
    return this.#length;
  }

  /** The block that the last request was for; -1: none yet. */
  get named(): number {
    return this.#named;
  }

  /**
   * Takes a request: `idstr` undefined is the block of the request before, `start` and `length` are bytes. Returns how many host pages it has
   * added. Throws MIGRATION_PAGE_REQUEST unless it means whole host pages of a known block.
   */
  add(idstr: string | undefined, start: number, length: number): number {
    const block = idstr === undefined ? this.#named : (this.#ram.indexOf(idstr) ?? -1);
    const found = this.#ram.blocks[block];
    if (found === undefined)
      throw badPageRequest(
        idstr ?? '',
        start,
        length,
        idstr === undefined ? 'no block was named before' : 'there is no such block',
      );
    const { hostPages, pageCount } = found;
    const hostPageSize = hostPages * this.#targetPageSize;
    const why = rangeFault(start, length, hostPageSize, pageCount * this.#targetPageSize);
    if (why !== undefined) throw badPageRequest(found.idstr, start, length, why);
    this.#named = block;
    const queued = this.#queued[block]!;
    const end = (start + length) / this.#targetPageSize;
    let added = 0;
    for (let page = start / this.#targetPageSize; page < end; page += hostPages) {
      if (testBit(queued, page) || !this.#ram.isDirty(block, page)) continue;
      setBit(queued, page);
      this.#waiting[this.#tiers[block]!]!.push(pageKey(block, page), this.#count++);
      this.#length++;
      added++;
    }
    return added;
  }

  /**
   * Moves `into` to the page that has waited longest and takes it out; false if none waits. Pages sent meanwhile are passed over. `open`: tiers that
   * may be taken from, a bit each.
   */
  next(into: Place, open = ANY): boolean {
    for (;;) {
      const fifo = this.#oldest(open);
      if (fifo === undefined) return false;
      const key = fifo.shift();
      this.#length--;
      const block = blockOfKey(key);
      const page = pageOfKey(key);
      clearBit(this.#queued[block]!, page);
      if (!this.#ram.isDirty(block, page)) continue;
      into.block = block;
      into.page = page;
      return true;
    }
  }

  /** The return path is a new one: nothing has been asked for, no block named. */
  clear(): void {
    for (const fifo of this.#waiting) fifo.clear();
    this.#length = 0;
    this.#named = -1;
    for (const map of this.#queued) map.fill(0);
  }

  /** Of the open tiers the one with the request that came first. */
  #oldest(open: number): Fifo | undefined {
    let oldest: Fifo | undefined;
    for (let tier = 0; tier < this.#waiting.length; tier++) {
      const fifo = this.#waiting[tier]!;
      if ((open & (1 << tier)) === 0 || fifo.length === 0) continue;
      if (oldest === undefined || fifo.since < oldest.since) oldest = fifo;
    }
    return oldest;
  }
}

/** Pages of one tier, each with the number of its request. */
class Fifo {
  readonly #keys: number[] = [];
  readonly #since: number[] = [];
  #head = 0;

  get length(): number {
    return this.#keys.length - this.#head;
  }

  /** Of the first one. */
  get since(): number {
    return this.#since[this.#head]!;
  }

  push(key: number, since: number): void {
    this.#keys.push(key);
    this.#since.push(since);
  }

  shift(): number {
    const key = this.#keys[this.#head++]!;
    if (this.#head >= 1024 || this.length === 0) this.#compact();
    return key;
  }

  clear(): void {
    this.#head = this.#keys.length;
    this.#compact();
  }

  #compact(): void {
    this.#keys.splice(0, this.#head);
    this.#since.splice(0, this.#head);
    this.#head = 0;
  }
}

function rangeFault(start: number, length: number, hostPageSize: number, usedLength: number): string | undefined {
  if (start % hostPageSize !== 0) return `it does not begin at a page of ${hostPageSize} bytes`;
  if (length === 0 || length % hostPageSize !== 0) return `its length is no multiple of the page size ${hostPageSize}`;
  return start + length > usedLength ? `the block has ${usedLength} bytes` : undefined;
}
