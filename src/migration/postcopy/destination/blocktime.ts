/** Buckets of the distribution: bucket n counts faults that took 2^n to 2^(n+1) us, the first also shorter and the last also longer ones. */
export const LATENCY_BUCKETS = 24;

const NS_PER_MS = 1e6;
const NS_PER_US = 1e3;

/** As query-migrate of QEMU 11.1 has them: block times in ms, latencies in ns. */
export interface BlocktimeFigures {
  /** How long all vCPUs at once could not go on. */
  readonly 'postcopy-blocktime': number;
  readonly 'postcopy-vcpu-blocktime': readonly number[];
  /** Mean over all faults. */
  readonly 'postcopy-latency': number;
  readonly 'postcopy-latency-dist': readonly number[];
  /** Mean of each vCPU's faults. */
  readonly 'postcopy-vcpu-latency': readonly number[];
  /** Mean of faults that no vCPU had. */
  readonly 'postcopy-non-vcpu-latency': number;
}

interface Share {
  faults: number;
  ns: number;
}

/**
 * Capability postcopy-blocktime: how long vCPUs wait for pages. A vCPU waits for one page at a time; several may wait for the same. Times
 * are ns of one monotonic clock, which the caller reads. Pages are named by any number that is a page's own.
 */
export class Blocktime {
  readonly #vcpus: Share[];
  readonly #others: Share = { faults: 0, ns: 0 };
  readonly #distribution: number[] = Array(LATENCY_BUCKETS).fill(0);
  /** Since when, and for which page, each vCPU waits; undefined: it does not. */
  readonly #waits: ({ readonly page: number; readonly sinceNs: number } | undefined)[];
  readonly #otherWaits = new Map<number, number>();
  #waiting = 0;
  /** When the last vCPU began to wait that had not. */
  #allSinceNs = 0;
  #allNs = 0;

  constructor(vcpuCount: number) {
    this.#vcpus = Array.from({ length: vcpuCount }, () => ({ faults: 0, ns: 0 }));
    this.#waits = Array.from({ length: vcpuCount }, () => undefined);
  }

  /** `vcpu` undefined: somebody else wants the page. A vCPU that waits already goes on waiting as before. */
  begin(vcpu: number | undefined, page: number, nowNs: number): void {
    if (vcpu === undefined) {
      if (!this.#otherWaits.has(page)) this.#otherWaits.set(page, nowNs);
      return;
    }
    if (this.#waits[vcpu] !== undefined) return;
    this.#waits[vcpu] = { page, sinceNs: nowNs };
    this.#waiting++;
    if (this.#waiting === this.#vcpus.length) this.#allSinceNs = nowNs;
  }

  /** The page is there: everybody who waits for it goes on. */
  end(page: number, nowNs: number): void {
    const all = this.#waiting === this.#vcpus.length;
    let woken = 0;
    for (let vcpu = 0; vcpu < this.#waits.length && this.#waiting > 0; vcpu++) {
      const wait = this.#waits[vcpu];
      if (wait?.page !== page) continue;
      this.#waits[vcpu] = undefined;
      this.#waiting--;
      woken++;
      this.#count(this.#vcpus[vcpu]!, nowNs - wait.sinceNs);
    }
    if (all && woken > 0) this.#allNs += Math.max(0, nowNs - this.#allSinceNs);
    const sinceNs = this.#otherWaits.get(page);
    if (sinceNs === undefined) return;
    this.#otherWaits.delete(page);
    this.#count(this.#others, nowNs - sinceNs);
  }

  get figures(): BlocktimeFigures {
    const shares = [...this.#vcpus, this.#others];
    const all = { faults: 0, ns: 0 };
    for (const { faults, ns } of shares) {
      all.faults += faults;
      all.ns += ns;
    }
    return {
      'postcopy-blocktime': Math.floor(this.#allNs / NS_PER_MS),
      'postcopy-vcpu-blocktime': this.#vcpus.map(({ ns }) => Math.floor(ns / NS_PER_MS)),
      'postcopy-latency': mean(all),
      'postcopy-latency-dist': [...this.#distribution],
      'postcopy-vcpu-latency': this.#vcpus.map(mean),
      'postcopy-non-vcpu-latency': mean(this.#others),
    };
  }

  /** Clocks of two threads may differ by microseconds: no fault takes less than no time. */
  #count(share: Share, tookNs: number): void {
    const ns = Math.max(0, tookNs);
    share.faults++;
    share.ns += ns;
    this.#distribution[bucketOf(ns)]!++;
  }
}

function bucketOf(ns: number): number {
  const us = Math.floor(ns / NS_PER_US);
  return us === 0 ? 0 : Math.min(LATENCY_BUCKETS - 1, Math.floor(Math.log2(us)));
}

function mean({ faults, ns }: Share): number {
  return faults === 0 ? 0 : Math.floor(ns / faults);
}
