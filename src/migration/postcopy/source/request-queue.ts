import { blockOfKey, clearBit, newBitmap, pageKey, pageOfKey, setBit, testBit } from '../../../base/index.ts';
import { badPageRequest } from '../../errors.ts';
import type { Place, RemainingRam } from './remaining-ram.ts';

/**
 * Host pages that the destination has asked for and that are still to be sent, in the order asked. A page that is waiting already, or no
 * longer to be sent, is not queued (qemu-wire 6.4: such requests are ordinary), so there are never more entries than pages.
 */
export class RequestQueue {
  readonly #ram: RemainingRam;
  readonly #targetPageSize: number;
  readonly #waiting: number[] = [];
  #head = 0;
  /** By block: host pages (their first target page) that are in the queue. */
  readonly #queued: readonly Uint32Array[];
  /** The block that the last request named; a request without a name means it. -1: none has. */
  #named = -1;

  constructor(ram: RemainingRam, targetPageSize: number) {
    this.#ram = ram;
    this.#targetPageSize = targetPageSize;
    this.#queued = ram.blocks.map(({ pageCount }) => newBitmap(pageCount));
  }

  get length(): number {
    return this.#waiting.length - this.#head;
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
      this.#waiting.push(pageKey(block, page));
      added++;
    }
    return added;
  }

  /** Moves `into` to the page that has waited longest and takes it out; false if none waits. Pages sent meanwhile are passed over. */
  next(into: Place): boolean {
    while (this.#head < this.#waiting.length) {
      const key = this.#waiting[this.#head++]!;
      const block = blockOfKey(key);
      const page = pageOfKey(key);
      clearBit(this.#queued[block]!, page);
      if (!this.#ram.isDirty(block, page)) continue;
      into.block = block;
      into.page = page;
      this.#compact();
      return true;
    }
    this.#compact();
    return false;
  }

  /** The return path is a new one: nothing has been asked for, no block named. */
  clear(): void {
    this.#waiting.length = 0;
    this.#head = 0;
    this.#named = -1;
    for (const map of this.#queued) map.fill(0);
  }

  #compact(): void {
    if (this.#head < 1024 && this.#head < this.#waiting.length) return;
    this.#waiting.splice(0, this.#head);
    this.#head = 0;
  }
}

function rangeFault(start: number, length: number, hostPageSize: number, usedLength: number): string | undefined {
  if (start % hostPageSize !== 0) return `it does not begin at a page of ${hostPageSize} bytes`;
  if (length === 0 || length % hostPageSize !== 0) return `its length is no multiple of the page size ${hostPageSize}`;
  return start + length > usedLength ? `the block has ${usedLength} bytes` : undefined;
}
