/**
 * Pages as they were last sent, so that the next time only the difference goes. Direct mapped: one page a slot, a newcomer replaces.
 * The cached bytes are exactly what the destination has, never a second read of guest memory that may have changed in between.
 */
export class XbzrleCache {
  readonly bytes: Buffer;
  readonly #pageSize: number;
  readonly #slotMask: number;
  /** Page key + 1 held by each slot; 0 = empty. */
  readonly #keys: Float64Array;
  readonly #zeroPage: Buffer;

  /** `sizeBytes`: a power of two, at least one page (xbzrle-cache-size). */
  constructor(sizeBytes: number, pageSize: number) {
    const slots = sizeBytes / pageSize;
    this.bytes = Buffer.allocUnsafeSlow(sizeBytes);
    this.#pageSize = pageSize;
    this.#slotMask = slots - 1;
    this.#keys = new Float64Array(slots);
    this.#zeroPage = Buffer.alloc(pageSize);
  }

  /** Position in `bytes` of the cached page, or -1. */
  find(key: number): number {
    const slot = key & this.#slotMask;
    return this.#keys[slot] === key + 1 ? slot * this.#pageSize : -1;
  }

  store(key: number, from: Buffer, at: number): void {
    const slot = key & this.#slotMask;
    this.#keys[slot] = key + 1;
    from.copy(this.bytes, slot * this.#pageSize, at, at + this.#pageSize);
  }

  /** The page was sent as zero: a cached older copy would be a wrong base. */
  storeZero(key: number): void {
    if (this.find(key) >= 0) this.store(key, this.#zeroPage, 0);
  }
}
