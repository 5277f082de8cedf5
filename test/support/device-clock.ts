import type { DeviceClock } from '../../src/vfio/index.ts';

/** Time that passes only when somebody sleeps and nobody works: as fast as the processor, and the same in every run. */
export class TestClock implements DeviceClock {
  #now = 0;
  #sleepers: { readonly until: number; readonly wake: () => void }[] = [];
  #scheduled = false;

  now(): number {
    return this.#now;
  }

  sleep(until: number): Promise<void> {
    if (until <= this.#now) return Promise.resolve();
    return new Promise((wake) => {
      this.#sleepers.push({ until, wake });
      this.#schedule();
    });
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      const until = Math.min(...this.#sleepers.map((sleeper) => sleeper.until));
      this.#now = until;
      const due = this.#sleepers.filter((sleeper) => sleeper.until === until);
      this.#sleepers = this.#sleepers.filter((sleeper) => sleeper.until !== until);
      for (const { wake } of due) wake();
      if (this.#sleepers.length > 0) this.#schedule();
    });
  }
}
