import { asError, Writer } from '../../base/index.ts';
import type { PageChannels } from '../../dataplane/index.ts';
import type { SettingsView } from '../../settings/index.ts';
import { type Channel, ChannelOutput, isTransportError } from '../../transport/index.ts';
import { encodeRamEos } from '../../wire/index.ts';
import { MigrationError } from '../errors.ts';
import { StallWatch } from '../stall-watch.ts';
import { NO_CHANNELS, type Traffic } from '../statistics.ts';
import { ReturnPathReader } from './return-path-reader.ts';

/** A staging buffer of a preempt channel, bytes: a piece of a page server and a record more. */
const URGENT_BUFFER_BYTES = 128 * 1024;

/** All connections of one migration to its destination, as its source holds them. They fail together and end together. */
export class Links {
  readonly main: Channel;
  readonly output: ChannelOutput;
  readonly returnPath: ReturnPathReader | undefined;
  /** Preempt channels of a postcopy. */
  readonly urgent: ChannelOutput[] = [];
  /** Rejects when the connections are lost or given up, all at once. Never resolves. */
  readonly lost: Promise<never>;
  #lose: (error: Error) => void = () => {};
  #channels: PageChannels | undefined;
  #destroyed: Error | undefined;
  #urgentMayEnd = false;

  /** `failed`: the return path broke before SHUT. */
  constructor(main: Channel, returnPath: boolean, failed: (error: Error) => void) {
    this.main = main;
    this.output = new ChannelOutput(main);
    this.lost = new Promise((_, reject) => {
      this.#lose = reject;
    });
    this.lost.catch(() => {});
    this.returnPath = returnPath ? new ReturnPathReader(main, failed) : undefined;
  }

  /** The parallel channels of capability multifd, once they are open. */
  get channels(): PageChannels | undefined {
    return this.#channels;
  }

  get traffic(): Traffic {
    const mainBytes = this.urgent.reduce((sum, { offset }) => sum + offset, this.output.offset);
    return { mainBytes, channels: this.#channels?.totals ?? NO_CHANNELS };
  }

  /** Whether the destination has not taken yet what it was sent. */
  get waitsForPeer(): boolean {
    return this.output.waitsForPeer || this.urgent.some((one) => one.waitsForPeer) || this.#channels?.busy === true;
  }

  /** Bytes that have left: while the links wait for the peer it grows, or they stand still. */
  get moved(): number {
    const channels = [this.main, ...this.urgent.map(({ channel }) => channel)];
    const bytes = channels.reduce((sum, { counters }) => sum + counters.bytesWritten, 0);
    return bytes + (this.#channels?.totals.bytes ?? 0);
  }

  addChannels(channels: PageChannels): void {
    this.#channels = channels;
    if (this.#destroyed !== undefined) channels.cancel(this.#destroyed);
  }

  /** The destination has, or gets without being asked, all that it needs: it may end preempt channels. */
  allSent(): void {
    this.#urgentMayEnd = true;
  }

  /** A preempt channel. `failed`: it has broken, or ended while pages may be asked for: what was sent on it is not where it should be. */
  addUrgent(channel: Channel, failed: (error: Error) => void): ChannelOutput {
    const output = new ChannelOutput(channel, { bufferBytes: URGENT_BUFFER_BYTES, bufferCount: 2 });
    this.urgent.push(output);
    if (this.#destroyed !== undefined) channel.destroy(this.#destroyed);
    // The destination says nothing on it; it is read to see its end.
    void untilItEnds(channel).then(
      () => {
        if (!this.#urgentMayEnd) failed(endedEarly(channel));
      },
      (error: unknown) => failed(asError(error)),
    );
    return output;
  }

  /** Looks whether the destination takes what it is sent, until the connections are closed. `stalled`: it does not any more. */
  watch(settings: SettingsView, stalled: (error: Error) => void): StallWatch {
    const watch = new StallWatch('room', settings, this, stalled);
    void this.main.closed.then(() => watch.end());
    return watch;
  }

  /** `promise`, or the end of the connections. */
  whileTheyLast<T>(promise: Promise<T>): Promise<T> {
    return Promise.race([promise, this.lost]);
  }

  /** Pages are asked for from now on: what is sent must not wait behind what was. */
  favourLatency(): void {
    this.main.favourLatency?.();
    for (const { channel } of this.urgent) channel.favourLatency?.();
  }

  /** EOS on the preempt channels: a destination of a machine type up to 7.2 waits for it. */
  async endUrgent(): Promise<void> {
    const eos = new Writer(8);
    encodeRamEos(eos);
    for (const output of this.urgent) {
      await output.put(eos.bytes());
      await output.drained();
    }
  }

  /** Everything that waits on a connection throws. Idempotent. */
  destroy(reason: Error): void {
    this.#destroyed ??= reason;
    this.#lose(reason);
    this.main.destroy(reason);
    for (const { channel } of this.urgent) channel.destroy(reason);
    this.#channels?.cancel(reason);
  }

  /** After the destination has confirmed, or all is written: nothing of the connections is left. Throws what went wrong on the way. */
  async end(): Promise<void> {
    await this.#channels?.end();
    await this.main.end();
  }

  /** After `destroy` or `end`: descriptors are closed, threads joined. Never throws. */
  async closed(): Promise<void> {
    const channels = [this.main, ...this.urgent.map(({ channel }) => channel)];
    for (const channel of channels) channel.destroy();
    await Promise.all([...channels.map(({ closed }) => closed), this.#channels?.closed()]);
  }
}

/** A QEMU with postcopy-preempt off takes the channel and closes it at once. */
function endedEarly({ label }: Channel): MigrationError {
  const message = `${label}: the destination has closed this channel: is postcopy-preempt on there?`;
  return new MigrationError({ code: 'MIGRATION_CHANNEL_NOT_TAKEN', channel: label }, message);
}

async function untilItEnds(channel: Channel): Promise<void> {
  try {
    while ((await channel.read()) !== null);
  } catch (error) {
    // A QEMU that has everything closes it, and never ends the TLS session (qemu-wire 6.6, 9.2). One that was cut off earlier shows when we write.
    if (!isTransportError(error) || error.code !== 'TRANSPORT_TLS_CUT') throw error;
  }
}
