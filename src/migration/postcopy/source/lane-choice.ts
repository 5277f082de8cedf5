/** Host pages up to this size are small: they are through in a moment. Bytes. */
const SMALL_BYTES_MAX = 64 * 1024;

/** A preempt channel, as the choice sees it. */
export interface ChoosableLane {
  /** Bytes that a page would find before it, from this process to the peer. */
  readonly ahead: number;
}

const IDLE = -1;

/**
 * Which preempt channel a requested page takes, and what must wait. Host pages are of a few sizes, one a RAM block: tier 0 are the small ones, each size
 * of huge pages is a tier of its own, in their order.
 *
 * - No page waits for a larger one: a tier of huge pages has one lane at a time, and one lane at least is left to the small ones. With too few lanes for
 *   that, the larger sizes share a tier.
 * - Huge pages of one size go one after another. Side by side on the same link each of them would come when the last one does.
 * - Small pages take any lane that is idle; of several, the one with the fewest bytes ahead, then the one that began a page longest ago.
 *
 * Who has asked first is not its business: see RequestQueue.
 */
export class LaneChoice {
  /** By block. */
  readonly tiers: readonly number[];
  /** By lane: the tier of the page that it sends, or IDLE. */
  readonly #working: Int8Array;
  /** By lane: when it began its last page, counted in pages. */
  readonly #began: Float64Array;
  #pages = 0;
  #open: number;

  /** `hostPageBytes`: of each block. */
  constructor(hostPageBytes: readonly number[], laneCount: number) {
    const huge = [...new Set(hostPageBytes.filter((bytes) => bytes > SMALL_BYTES_MAX))].sort((a, b) => a - b);
    this.tiers = hostPageBytes.map((bytes) => Math.max(0, Math.min(huge.indexOf(bytes) + 1, laneCount - 1)));
    this.#working = new Int8Array(laneCount).fill(IDLE);
    this.#began = new Float64Array(laneCount);
    this.#open = (1 << (Math.max(0, ...this.tiers) + 1)) - 1;
  }

  /** Tiers of which a page may begin now, a bit each, if there is an idle lane. */
  get open(): number {
    return this.#open;
  }

  /** The idle lane that the next page takes; -1: there is none. `lanes`: all of them, in their order. */
  idle(lanes: readonly ChoosableLane[]): number {
    let best = -1;
    let fewest = 0;
    for (let lane = 0; lane < lanes.length; lane++) {
      if (this.#working[lane] !== IDLE) continue;
      const ahead = lanes.length === 1 ? 0 : lanes[lane]!.ahead;
      if (best >= 0 && (ahead > fewest || (ahead === fewest && this.#began[lane]! >= this.#began[best]!))) continue;
      best = lane;
      fewest = ahead;
    }
    return best;
  }

  /** An idle lane begins a page of `block`, whose tier is open. */
  begin(lane: number, block: number): void {
    const tier = this.tiers[block]!;
    this.#working[lane] = tier;
    this.#began[lane] = ++this.#pages;
    if (tier > 0) this.#open &= ~(1 << tier);
  }

  /** It has sent its page. */
  end(lane: number): void {
    this.#open |= 1 << this.#working[lane]!;
    this.#working[lane] = IDLE;
  }
}
