/**
 * The receiving end of all channels. `meet` is the point of the main stream where all channels meet: every EOS of a ram section for machine types
 * up to 8.0, every MULTIFD_FLUSH for later ones (qemu-wire 5.6). Which of them it is, is not known here.
 */
import { assert } from '../base/index.ts';
import type { SharedRam } from '../machine/index.ts';
import { closeLine, type Line } from '../native/index.ts';
import { type DeviceAddress, MULTIFD_INITIAL_BYTES } from '../wire/multifd/index.ts';
import { ChannelGroup, type ChannelInfo, type ChannelTotals } from './channel-group.ts';
import { ChannelThread } from './channel-thread.ts';
import { signal, Word } from './control-words.ts';
import type { StateLoaderModule } from './device-state/loader.ts';
import { StateLane, stuck } from './device-state/state-lane.ts';
import { StateQueue } from './device-state/state-queue.ts';
import { type ChannelError, channelLabel, dataplaneError } from './errors.ts';
import type { PageCompression, ReceiveStart } from './messages.ts';
import { takeThread } from './ready-thread.ts';

export interface ReceiveOptions {
  /** Accepted connections in the order of their channel ids, each read up to the end of its initial packet. They are the channels' from here on. */
  readonly lines: readonly Line[];
  /** Blocks in the order of the stream's block list. */
  readonly ram: SharedRam;
  readonly compression: PageCompression;
  /** With TLS, whether a connection that ends before its session is taken for an end (multifd-clean-tls-termination off); default not. */
  readonly cutIsEnd?: boolean;
  readonly state?: ReceivedState;
  /** Called once, when a channel fails by itself. All channels are closed by then, or soon. */
  readonly failed: (error: ChannelError) => void;
}

/** Devices whose state comes on these channels (10.0+); without them such a packet is refused. */
export interface ReceivedState {
  /** `loader`: the receiving threads load the device's state themselves; else its lane's consumer does. */
  readonly devices: readonly (DeviceAddress & { readonly loader?: StateLoaderModule })[];
  /** Buffers of all devices that memory is taken for, of 1 MiB each as they are used; more than there are devices. */
  readonly buffersMax: number;
  /** Buffers of one device that may wait while all devices have work (device-state/reassembly says when it gives way); at least 1. */
  readonly queuedMax: number;
}

export class ReceiveChannels {
  readonly #group: ChannelGroup;
  readonly #queue: StateQueue | undefined;
  /** Of the devices, in their order. */
  readonly lanes: readonly StateLane[];
  #points = 0;
  /** Main waits at the last point. */
  #meets = false;

  /** Throws NATIVE_UNAVAILABLE, DATAPLANE_UNAVAILABLE; nothing is left open then. */
  static async start(options: ReceiveOptions): Promise<ReceiveChannels> {
    const { lines } = options;
    assert(lines.length >= 1 && lines.length <= 255, 'there are 1 to 255 channels');
    const channels = new ReceiveChannels(options);
    const spawn = (channel: number) => channels.#spawn(options, channel, lines[channel]!);
    await channels.#group.open(lines.length, options.compression, spawn, (channel) => closeLine(lines[channel]!));
    return channels;
  }

  private constructor({ lines, state, failed }: ReceiveOptions) {
    const devices = state?.devices ?? [];
    if (state !== undefined && devices.length > 0) {
      const addresses = devices.map(({ idstr, instance }) => ({ idstr, instance }));
      const queuedMax = Math.min(state.queuedMax, state.buffersMax);
      this.#queue = StateQueue.make(addresses, lines.length, { slots: state.buffersMax, queuedMax });
    }
    this.#group = new ChannelGroup(failed, () => this.#queue?.close());
    this.lanes = devices.map(({ loader }, device) => {
      return new StateLane(this.#queue!, device, this.#group, loader !== undefined);
    });
  }

  #spawn(options: ReceiveOptions, channel: number, line: Line): ChannelThread {
    const { compression, cutIsEnd = false } = options;
    let ram: SharedRam;
    try {
      ram = this.#group.hold(options.ram);
    } catch (thrown) {
      closeLine(line);
      throw thrown;
    }
    const queue = this.#queue?.shared;
    const loaders = options.state?.devices.map(({ loader }) => loader) ?? [];
    const start: ReceiveStart = {
      channel,
      name: `mig/dst/recv_${channel}`,
      line,
      ram,
      compression,
      cutIsEnd,
      offset: MULTIFD_INITIAL_BYTES,
      state: queue && { queue, loaders },
    };
    return new ChannelThread(takeThread('receive'), start, this.#group.reports(channel));
  }

  /**
   * Waits until every channel has come to its next SYNC - all pages before it are in memory then - and lets them go on. Throws DATAPLANE_ENDED
   * if one can not come any more, or what has ended the channels.
   */
  async meet(): Promise<void> {
    const point = ++this.#points;
    this.#meets = true;
    await this.#group.wait(() => {
      const missing = this.#group.threads.filter((thread) => thread.syncs < point);
      const lost = missing.find((thread) => this.#group.hasEnded(thread.channel));
      if (lost !== undefined) this.#lose(lost, point);
      else this.#expectMore(missing);
      return missing.length === 0;
    });
    this.#meets = false;
    for (const { control } of this.#group.threads) {
      Atomics.store(control.words, Word.RELEASED, point);
      signal(control.words);
    }
  }

  /** Devices may load what has come (SWITCHOVER_START): consumers are about to ask their lanes, receiving threads begin by themselves. */
  openLanes(): void {
    this.#queue?.open();
  }

  /**
   * Main has met its last point: SYNC packets that nobody collects hold no channel up any more, and pages are refused. State of devices may still
   * come; when all lanes have given their last buffer, `finish`.
   */
  endPages(): void {
    for (const thread of this.#group.threads) thread.stopAtEnd();
  }

  /**
   * No more pages may come: what has arrived is read to its end, SYNC packets that nobody collects are let go (a QEMU 9.1 or 9.2 sends such),
   * then the threads are joined. After it nothing touches the memory any more. The connections stay open until `close`, so that a source
   * that has a last word for them is not told that they are gone. Throws DATAPLANE_LATE_PAGES, or what has ended the channels.
   */
  async finish(): Promise<void> {
    for (const thread of this.#group.threads) thread.stopReceiving();
    await Promise.all(this.#group.threads.map((thread) => thread.joined));
    if (this.#group.failure !== undefined) throw this.#group.failure;
  }

  /** After `finish`: closes the connections. */
  close(): void {
    this.#group.close();
  }

  /** Somebody here waits for what only the source can send on these channels. */
  get waitsForPeer(): boolean {
    return this.#meets || this.lanes.some(({ waits }) => waits);
  }

  get totals(): ChannelTotals {
    return this.#group.totals;
  }

  get threads(): ChannelInfo[] {
    return this.#group.info;
  }

  /** Ends everything at once, whatever it waits for; `closed` settles soon after. Idempotent. */
  cancel(reason?: unknown): void {
    this.#group.cancel(reason);
  }

  /** After `cancel` or a failure: threads joined, descriptors closed. Never throws. */
  closed(): Promise<void> {
    return this.#group.joined();
  }

  /** Main meets here: if all channels that it waits for hold device state that nobody will take, it would wait for ever. */
  #expectMore(missing: readonly ChannelThread[]): void {
    const queue = this.#queue;
    if (queue === undefined || missing.length === 0) return;
    const isHeld = ({ channel }: ChannelThread) => queue.isHopeless(channel) || queue.isEarly(channel);
    if (missing.every(isHeld)) this.#group.fail(stuck(queue.shared.limits.slots));
  }

  #lose(thread: ChannelThread, sync: number): void {
    const { channel, counters } = thread;
    const offset = counters.bytes;
    const message = `${channelLabel(channel)}: offset ${offset}: the source ended the channel before SYNC ${sync}`;
    this.#group.fail(dataplaneError({ code: 'DATAPLANE_ENDED', channel, offset, sync }, message));
  }
}
