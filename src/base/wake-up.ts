/**
 * One that waits, and others who have news for it. A wake-up is not kept for who comes later: look for the news first, then wait, with nothing
 * awaited in between.
 */
export class WakeUp {
  #resume: () => void = () => {};

  /** Whoever waits goes on. */
  wake(): void {
    this.#resume();
  }

  /** The next `wake`, or `timeoutMs`, at least 1. */
  next(timeoutMs?: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = timeoutMs === undefined ? undefined : setTimeout(() => this.wake(), Math.max(1, timeoutMs));
      this.#resume = () => {
        this.#resume = () => {};
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
