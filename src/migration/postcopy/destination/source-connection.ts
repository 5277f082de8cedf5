import { asError } from '../../../base/index.ts';
import type { SettingsView } from '../../../settings/index.ts';
import type { Channel } from '../../../transport/index.ts';
import type { ReturnPathMessage } from '../../../wire/index.ts';
import { inTime } from '../../deadline.ts';
import type { SourceListener } from '../../destination/arrivals.ts';
import { answer } from '../../destination/last-words.ts';

/** One connection to the source of a postcopy: its main channel and its preempt channel, which are lost together. */
export class SourceConnection {
  readonly main: Channel;
  readonly #lost: Promise<never>;
  #lose: (error: Error) => void = () => {};
  #preempt: Channel | undefined;
  /** Whoever reads a channel, to be waited for when the connection is lost. */
  readonly #readers: Promise<unknown>[] = [];

  constructor(main: Channel) {
    this.main = main;
    this.#lost = new Promise((_, reject) => {
      this.#lose = reject;
    });
    this.#lost.catch(() => {});
  }

  get hasPreempt(): boolean {
    return this.#preempt !== undefined;
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

  /** The preempt channel, which is the next that comes. Throws MIGRATION_DEADLINE, TransportError, why the connection was lost. */
  async awaitPreempt(listener: SourceListener, settings: SettingsView, signal: AbortSignal): Promise<Channel> {
    const arrival = listener.next(signal);
    const connection = await inTime(this.whileItLasts(arrival), 'preempt', settings);
    this.#preempt = connection.channel('preempt');
    return this.#preempt;
  }

  /** The preempt channel alone: when everything is here it is this side that closes it (qemu-wire 6.6). */
  async closePreempt(): Promise<void> {
    this.#preempt?.destroy();
    await this.#preempt?.closed;
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
    this.#preempt?.destroy(error);
    await Promise.all([this.main.closed, this.#preempt?.closed, ...this.#readers]);
  }
}
