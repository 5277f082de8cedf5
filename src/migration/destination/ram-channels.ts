import { type ChannelInfo, type ChannelTotals, type PageCompression, ReceiveChannels } from '../../dataplane/index.ts';
import type { IncomingState, SectionName, SharedRam } from '../../machine/index.ts';
import { closeLine, type Line } from '../../native/index.ts';
import { MULTIFD_DEVICE_BYTES_MAX } from '../../wire/index.ts';
import { unsupported } from '../errors.ts';
import { NO_CHANNELS } from '../statistics.ts';

/** Memory for state that waits for its device, in buffers that are backed as they are used. */
const BUFFERS_MIN = 64;
const BUFFERS_PER_DEVICE = 16;

export interface RamChannelsOptions {
  readonly compression: PageCompression;
  /** Of one device's state, while all devices have work; one buffer always may wait. */
  readonly queuedBytesMax: number;
  /** Called once, when a channel fails by itself. */
  readonly failed: (error: Error) => void;
}

/**
 * The parallel channels of an incoming migration, from their arrival to their end, and at which points of the main stream they meet. The stream
 * tells: a source of the newer discipline has a MULTIFD_FLUSH in the START section of RAM and at the end of each round; one of the older has none, and
 * they meet at the end of every section of RAM (qemu-wire 5.6).
 */
export class RamChannels {
  /** Until the threads have them. */
  #lines: readonly Line[];
  readonly #options: RamChannelsOptions;
  #channels: ReceiveChannels | undefined;
  #discipline: 'section' | 'round' | undefined;
  /** Those whose state may come here. */
  #devices: readonly SectionName[] = [];

  /** `lines`: by channel id; they are these channels' from now on. */
  constructor(lines: readonly Line[], options: RamChannelsOptions) {
    this.#lines = lines;
    this.#options = options;
  }

  /** The blocks are known: pages may come, and state of these devices. `cutIsEnd`: the source does not end its TLS sessions. Throws ChannelFault. */
  async start(ram: SharedRam, devices: readonly SectionName[], cutIsEnd: boolean): Promise<void> {
    const lines = this.#lines;
    this.#lines = [];
    const { compression, failed, queuedBytesMax } = this.#options;
    const options = { lines, ram, compression, cutIsEnd, failed };
    // Packets of state are never compressed, so they do not go where pages are.
    if (compression === 'none') this.#devices = devices;
    const state = {
      devices: this.#devices,
      buffersMax: Math.max(BUFFERS_MIN, BUFFERS_PER_DEVICE * devices.length),
      queuedMax: Math.max(1, Math.floor(queuedBytesMax / MULTIFD_DEVICE_BYTES_MAX)),
    };
    this.#channels = await ReceiveChannels.start(this.#devices.length === 0 ? options : { ...options, state });
  }

  /** SWITCHOVER_START has come: each device's state, in order, as it comes on the channels. */
  openStates(): readonly { readonly device: SectionName; readonly state: IncomingState }[] {
    const channels = this.#channels;
    if (channels === undefined) return [];
    channels.openLanes();
    return this.#devices.map((device, index) => ({ device, state: channels.lanes[index]! }));
  }

  /** All of the main stream has been read: no more pages come. */
  endPages(): void {
    this.#channels?.endPages();
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

  /** After `endPages`, when all state is loaded: afterwards every page is in place and no thread touches RAM any more. Throws ChannelFault. */
  async finish(): Promise<void> {
    await this.#channels?.finish();
  }

  /** After `finish`, when the source needs them no more. */
  close(): void {
    this.#channels?.close();
  }

  /** Ends everything at once; when it resolves no thread touches RAM any more and nothing is open. Never throws. */
  async cancel(reason: Error): Promise<void> {
    for (const line of this.#lines) closeLine(line);
    this.#lines = [];
    this.#channels?.cancel(reason);
    await this.#channels?.closed();
  }

  /** What goes on here waits for more on these channels. */
  get waitsForPeer(): boolean {
    return this.#channels?.waitsForPeer ?? false;
  }

  get totals(): ChannelTotals {
    return this.#channels?.totals ?? NO_CHANNELS;
  }

  get threads(): readonly ChannelInfo[] {
    return this.#channels?.threads ?? [];
  }
}
