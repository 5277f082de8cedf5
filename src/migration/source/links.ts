import type { PageChannels } from '../../dataplane/index.ts';
import { type Channel, ChannelOutput } from '../../transport/index.ts';
import { NO_CHANNELS, type Traffic } from '../statistics.ts';
import { ReturnPathReader } from './return-path-reader.ts';

/** All connections of one migration to its destination, as its source holds them. They fail together and end together. */
export class Links {
  readonly main: Channel;
  readonly output: ChannelOutput;
  readonly returnPath: ReturnPathReader | undefined;
  #channels: PageChannels | undefined;
  #destroyed: Error | undefined;

  /** `failed`: the return path broke before SHUT. */
  constructor(main: Channel, returnPath: boolean, failed: (error: Error) => void) {
    this.main = main;
    this.output = new ChannelOutput(main);
    this.returnPath = returnPath ? new ReturnPathReader(main, failed) : undefined;
  }

  /** The parallel channels of capability multifd, once they are open. */
  get channels(): PageChannels | undefined {
    return this.#channels;
  }

  get traffic(): Traffic {
    return { mainBytes: this.output.offset, channels: this.#channels?.totals ?? NO_CHANNELS };
  }

  addChannels(channels: PageChannels): void {
    this.#channels = channels;
    if (this.#destroyed !== undefined) channels.cancel(this.#destroyed);
  }

  /** Everything that waits on a connection throws. Idempotent. */
  destroy(reason: Error): void {
    this.#destroyed ??= reason;
    this.main.destroy(reason);
    this.#channels?.cancel(reason);
  }

  /** After the destination has confirmed, or all is written: nothing of the connections is left. Throws what went wrong on the way. */
  async end(): Promise<void> {
    await this.#channels?.end();
    await this.main.end();
  }

  /** After `destroy` or `end`: descriptors are closed, threads joined. Never throws. */
  async closed(): Promise<void> {
    this.main.destroy();
    await Promise.all([this.main.closed, this.#channels?.closed()]);
  }
}
