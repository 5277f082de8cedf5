import { closeSync } from 'node:fs';
import { type ChannelInfo, type ChannelTotals, type PageCompression, ReceiveChannels } from '../../dataplane/index.ts';
import type { SharedRam } from '../../machine/index.ts';
import { unsupported } from '../errors.ts';
import { NO_CHANNELS } from '../statistics.ts';

/**
 * The parallel channels of an incoming migration, from their arrival to their end, and at which points of the main stream they meet. The stream
 * tells: a source of the newer discipline has a MULTIFD_FLUSH in the START section of RAM and at the end of each round; one of the older has none, and
 * they meet at the end of every section of RAM (qemu-wire 5.6).
 */
export class RamChannels {
  /** Until the threads have them. */
  #fds: readonly number[];
  readonly #compression: PageCompression;
  readonly #failed: (error: Error) => void;
  #channels: ReceiveChannels | undefined;
  #discipline: 'section' | 'round' | undefined;

  /** `fds`: by channel id; they are these channels' from now on. `failed`: called once, when one fails by itself. */
  constructor(fds: readonly number[], compression: PageCompression, failed: (error: Error) => void) {
    this.#fds = fds;
    this.#compression = compression;
    this.#failed = failed;
  }

  /** The blocks are known: pages may come. Throws ChannelFault. */
  async start(ram: SharedRam): Promise<void> {
    const fds = this.#fds;
    this.#fds = [];
    const options = { fds, ram, compression: this.#compression, failed: this.#failed };
    this.#channels = await ReceiveChannels.start(options);
  }

  /** A MULTIFD_FLUSH has been read. Throws what `meet` throws, MIGRATION_UNSUPPORTED if the source mixes the disciplines. */
  async flushed(): Promise<void> {
    this.#discipline ??= 'round';
    if (this.#discipline === 'section')
      throw unsupported('MULTIFD_FLUSH of a source that had none in its START section');
    await this.#channels?.meet();
  }

  /** EOS of a section of RAM has been read; its footer may come only when the channels have met. */
  async sectionEnded(): Promise<void> {
    this.#discipline ??= 'section';
    if (this.#discipline === 'section') await this.#channels?.meet();
  }

  /** All of the main stream has been read: afterwards every page is in place and no thread touches RAM any more. Throws ChannelFault. */
  async finish(): Promise<void> {
    await this.#channels?.finish();
  }

  /** After `finish`, when the source needs them no more. */
  close(): void {
    this.#channels?.close();
  }

  /** Ends everything at once; when it resolves no thread touches RAM any more and nothing is open. Never throws. */
  async cancel(reason: Error): Promise<void> {
    for (const fd of this.#fds) closeSync(fd);
    this.#fds = [];
    this.#channels?.cancel(reason);
    await this.#channels?.closed();
  }

  get totals(): ChannelTotals {
    return this.#channels?.totals ?? NO_CHANNELS;
  }

  get threads(): readonly ChannelInfo[] {
    return this.#channels?.threads ?? [];
  }
}
