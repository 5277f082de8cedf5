/**
 * Token bucket for `max-bandwidth`. Time earns bytes, sending spends them; sending is allowed while the account is not overdrawn, so
 * over any span of t seconds at most rate * (t + BURST_SECONDS) bytes and one piece go out. Clock and waiting are the caller's.
 */
const BURST_SECONDS = 0.01;
/** Who waits asks again at least this often: the rate may have been changed meanwhile. */
const DELAY_MS_MAX = 1000;

export class Pacer {
  /** Bytes per second; 0 = unlimited. */
  rate = 0;
  #credit = 0;
  #lastMs = 0;

  /** How long to wait before the next piece may be sent, or before asking again, ms; 0 = send now. */
  delayMs(nowMs: number): number {
    if (this.rate === 0) return 0;
    const earned = (this.rate * Math.max(0, nowMs - this.#lastMs)) / 1000;
    this.#credit = Math.min(this.rate * BURST_SECONDS, this.#credit + earned);
    this.#lastMs = nowMs;
    return this.#credit >= 0 ? 0 : Math.min(DELAY_MS_MAX, (-this.#credit / this.rate) * 1000);
  }

  spend(byteCount: number): void {
    this.#credit = this.rate === 0 ? 0 : this.#credit - byteCount;
  }
}
