import { asError } from '../../../base/index.ts';
import type { SettingsView } from '../../../settings/index.ts';
import type { Channel } from '../../../transport/index.ts';
import type { ReturnPathMessage } from '../../../wire/index.ts';
import { inTime } from '../../deadline.ts';
import type { SourceListener } from '../../destination/arrivals.ts';
import { answer } from '../../destination/last-words.ts';
import { acceptPreempt } from './preempt-arrivals.ts';

/** One connection to the source of a postcopy: its main channel and its preempt channels, which are lost together. */
export class SourceConnection {
  readonly main: Channel;
  readonly #lost: Promise<never>;
  #lose: (error: Error) => void = () => {};
  #preempt: readonly Channel[] = [];
  /** Whoever reads a channel, to be waited for when the connection is lost. */
  readonly #readers: Promise<unknown>[] = [];

  constructor(main: Channel) {
    this.main = main;
    this.#lost = new Promise((_, reject) => {
      this.#lose = reject;
    });
    this.#lost.catch(() => {});
  }

  /** Everything that waits for the connection throws `error`. The first one counts. */
  lose(error: Error): void {
    this.#lose(error);
  }

  /** `promise`, or the end of the connection. */
  whileItLasts<T>(promise: Promise<T>): Promise<T> {
    return Promise.race([promise, this.#lost]);
  }

  /** As `whileItLasts`, of something that reads a channel and ends when that is destroyed. */
  read<T>(reader: Promise<T>): Promise<T> {
    this.#readers.push(reader.catch(() => {}));
    return this.whileItLasts(reader);
  }

  /** On the return path, in order; a failure is that of the connection. */
  say(message: ReturnPathMessage): void {
    answer(this.main, message).catch((error: unknown) => this.lose(asError(error)));
  }

  /** So many preempt channels, which are the next that come. Throws MIGRATION_DEADLINE, why the connection was lost, and as `acceptPreempt`. */
  async awaitPreempt(
    listener: SourceListener,
    count: number,
    settings: SettingsView,
    signal: AbortSignal,
  ): Promise<readonly Channel[]> {
    const arrival = acceptPreempt(listener, count, settings, signal);
    try {
      this.#preempt = await inTime(this.whileItLasts(arrival), 'preempt', settings);
    } catch (error) {
      // Too late: whoever closes the listener ends the wait for them.
      arrival.then(destroyAll, () => {});
      throw error;
    }
    return this.#preempt;
  }

  /** The preempt channels alone: when everything is here it is this side that closes them (qemu-wire 6.6). */
  async closePreempt(): Promise<void> {
    destroyAll(this.#preempt);
    await Promise.all(this.#preempt.map(({ closed }) => closed));
  }

  /** When it resolves nobody reads the channels, of which main is still open. Whoever reads main must have been told to end. */
  async unread(): Promise<void> {
    await this.closePreempt();
    await Promise.all(this.#readers);
  }

  /** Gives the connection up. When it resolves nothing reads its channels any more. */
  async close(error: Error): Promise<void> {
    this.lose(error);
    this.main.destroy(error);
    destroyAll(this.#preempt, error);
    await Promise.all([this.main.closed, ...this.#preempt.map(({ closed }) => closed), ...this.#readers]);
  }
}

function destroyAll(channels: readonly Channel[], reason?: Error): void {
  for (const channel of channels) channel.destroy(reason);
}
