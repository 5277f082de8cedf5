import { hostClock } from './host-clock.ts';

/** The machine's own clock: how long it has run, in all processes together. */
export class GuestClock {
  readonly #now = hostClock();
  /** Without the current run; and when that began. */
  #ns = 0;
  #runningSince: number | undefined;

  /** Without the current run, ns. */
  get ns(): number {
    return this.#ns;
  }

  load(ns: number): void {
    this.#ns = ns;
  }

  start(): void {
    this.#runningSince = this.#now();
  }

  stop(): void {
    if (this.#runningSince === undefined) return;
    this.#ns += this.#now() - this.#runningSince;
    this.#runningSince = undefined;
  }
}
