/** Time as an emulated VF has it: real, or a test's. */
export interface DeviceClock {
  /** Monotonic ms. */
  now(): number;
  /** Resolves at `until` (ms of this clock) or a little later; at once if it has passed. */
  sleep(until: number): Promise<void>;
}

export const realClock: DeviceClock = {
  now: () => performance.now(),
  sleep: (until) => {
    const ms = until - performance.now();
    return ms < TIMER_MS / 2
      ? Promise.resolve()
      : new Promise((resolve) => setTimeout(resolve, Math.max(TIMER_MS, ms)));
  },
};

/** Timers are no finer than this. */
const TIMER_MS = 1;
/** What a late timer has cost is made up for by the next bytes, up to this much. */
const SLACK_MS = 4;

/** Bytes that pass at a rate. */
export class Throughput {
  readonly #clock: DeviceClock;
  /** Bytes a ms; Infinity: takes no time. */
  readonly #perMs: number;
  #freeAt = Number.NEGATIVE_INFINITY;

  /** `rate`: bytes a second, 0 = as fast as the processor. */
  constructor(clock: DeviceClock, rate: number) {
    this.#clock = clock;
    this.#perMs = rate === 0 ? Number.POSITIVE_INFINITY : rate / 1000;
  }

  costMs(bytes: number): number {
    return bytes / this.#perMs;
  }

  /** Resolves when `bytes` have passed. */
  async spend(bytes: number): Promise<void> {
    this.#freeAt = Math.max(this.#freeAt, this.#clock.now() - SLACK_MS) + this.costMs(bytes);
    if (this.#freeAt > this.#clock.now()) await this.#clock.sleep(this.#freeAt);
  }
}

/** Operations that are due as time passes. */
export class Pace {
  readonly #perMs: number;
  #since: number;
  #credit = 0;

  /** Operations a ms. */
  constructor(perMs: number, now: number) {
    this.#perMs = perMs;
    this.#since = now;
  }

  /** Nothing is due for the time until now. */
  skip(now: number): void {
    this.#since = now;
  }

  /** How many since the last call. Who was kept from running for long catches up with CATCH_UP_MS of it, not more. */
  due(now: number): number {
    const spanMs = Math.min(now - this.#since, CATCH_UP_MS);
    this.#since = now;
    this.#credit += spanMs * this.#perMs;
    const count = Math.floor(this.#credit);
    this.#credit -= count;
    return count;
  }
}

const CATCH_UP_MS = 100;
