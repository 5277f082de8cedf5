import { asError, WakeUp } from '../../../base/index.ts';
import { WAITS } from '../../../settings/index.ts';
import type { Channel } from '../../../transport/index.ts';
import type { SourceListener } from '../../destination/arrivals.ts';

/** A paused destination that waits for its source, at the address that was named last. */
export class Reconnection {
  readonly #waitsFor: (what: string | undefined) => void;
  readonly #news = new WakeUp();
  #listener: SourceListener | undefined;
  #endedBy: Error | undefined;

  constructor(waitsFor: (what: string | undefined) => void) {
    this.#waitsFor = waitsFor;
  }

  /** The source is awaited there, and nowhere else any more. */
  offer(listener: SourceListener): void {
    this.#listener?.close();
    this.#listener = listener;
    this.#news.wake();
  }

  /** Nobody is awaited any more: `connection` rejects with `error`. */
  end(error: Error): void {
    this.#endedBy ??= error;
    this.#listener?.close();
    this.#news.wake();
  }

  /**
   * The first connection that comes, with the listener, which may bring more. `failed`: why an address was of no use; another one is waited for.
   * Rejects only with what `end` was given.
   */
  async connection(
    signal: AbortSignal,
    failed: (error: Error) => void,
  ): Promise<{ readonly main: Channel; readonly listener: SourceListener }> {
    try {
      for (;;) {
        const listener = this.#listener;
        if (this.#endedBy !== undefined) throw this.#endedBy;
        if (listener === undefined) {
          this.#waitsFor(WAITS.offer.what);
          await this.#news.next();
          continue;
        }
        this.#waitsFor(WAITS.source.what);
        const main = await listener.accept(signal).catch((error: unknown) => asError(error));
        // Given up for a newer one: that is no failure, and who has come there after all is not awaited any more.
        if (this.#listener !== listener || this.#endedBy !== undefined) {
          if (!(main instanceof Error)) main.destroy();
          continue;
        }
        if (!(main instanceof Error)) return { main, listener };
        this.#listener = undefined;
        failed(main);
      }
    } finally {
      this.#listener = undefined;
      this.#waitsFor(undefined);
    }
  }
}
