/** What a client has mapped for DMA: disjoint ranges of addresses, in order. */
export interface Mapping {
  readonly iova: number;
  readonly length: number;
  readonly readable: boolean;
  readonly writable: boolean;
}

export class Mappings {
  readonly #sorted: Mapping[] = [];

  get size(): number {
    return this.#sorted.length;
  }

  /** False: it overlaps one that is there. */
  add(mapping: Mapping): boolean {
    const at = this.#firstEndingAfter(mapping.iova);
    const next = this.#sorted[at];
    if (next !== undefined && next.iova < mapping.iova + mapping.length) return false;
    this.#sorted.splice(at, 0, mapping);
    return true;
  }

  /** False: there is none of exactly this range. */
  remove(iova: number, length: number): boolean {
    const at = this.#firstEndingAfter(iova);
    const found = this.#sorted[at];
    if (found === undefined || found.iova !== iova || found.length !== length) return false;
    this.#sorted.splice(at, 1);
    return true;
  }

  clear(): void {
    this.#sorted.length = 0;
  }

  /** The one that the address is in. */
  at(iova: number): Mapping | undefined {
    const found = this.#sorted[this.#firstEndingAfter(iova)];
    return found !== undefined && found.iova <= iova ? found : undefined;
  }

  #firstEndingAfter(iova: number): number {
    let low = 0;
    let high = this.#sorted.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const { iova: start, length } = this.#sorted[middle]!;
      if (start + length > iova) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}
