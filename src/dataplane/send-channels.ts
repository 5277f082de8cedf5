/**
 * The sending end of all channels: batches become packets, straight from guest memory. A receiver takes nothing behind a SYNC packet from any
 * channel before every channel has come to its own.
 */
import { assert } from '../base/index.ts';
import type { SharedRam } from '../machine/index.ts';
import { closeLine, type Line, sendFirst } from '../native/index.ts';
import {
  type DeviceAddress,
  encodeMultifdInitial,
  MULTIFD_DEVICE_BYTES_MAX,
  MULTIFD_INITIAL_BYTES,
} from '../wire/multifd/index.ts';
import { BATCH, STATE, STATE_BUFFER } from './batch-ring.ts';
import { ChannelThread } from './channel-thread.ts';
import { StateArena } from './device-state/state-arena.ts';
import { type ChannelError, channelError } from './errors.ts';
import type { PageCompression, SendStart } from './messages.ts';
import { PageChannels } from './page-channels.ts';
import { takeThread } from './ready-thread.ts';

export interface SendOptions {
  /** Connections that are announced, channel 0 first; 1..255 of them. They are the channels' from here on, also if `start` throws. */
  readonly lines: readonly Line[];
  readonly ram: SharedRam;
  readonly compression: PageCompression;
  /** zlib 0..9, zstd 1..20. */
  readonly level: number;
  /** Zero pages are found by the channels and listed (receivers from QEMU 9.0 on); else they are sent like all pages. */
  readonly findZeroPages: boolean;
  readonly state?: SentState;
  /** Called once, when a channel fails by itself. All channels are closed by then, or soon. */
  readonly failed: (error: ChannelError) => void;
}

/** Devices whose state goes on these channels (receivers from QEMU 10.0 on, compression none). */
export interface SentState {
  readonly devices: readonly DeviceAddress[];
  /** Buffers of 1 MiB that all devices save to; at least 1. */
  readonly buffers: number;
}

/** A buffer of device state that is being filled. */
export interface OutgoingBuffer {
  /** Its number. */
  readonly buffer: number;
  /** MULTIFD_DEVICE_BYTES_MAX, in shared memory. */
  readonly bytes: Buffer;
}

/**
 * The initial packet of a channel, right after it is connected: a QEMU that looks at who comes waits for these bytes, and does nothing else, not even
 * shake hands with the next. The empty connection takes them at once. `uuid`: of the VM, 16 bytes; undefined if it has none. Throws
 * DATAPLANE_LOST, DATAPLANE_TLS; then `line` is closed.
 */
export function announceChannel(line: Line, channel: number, uuid: Uint8Array | undefined): void {
  try {
    sendFirst(line, encodeMultifdInitial(channel, uuid));
  } catch (thrown) {
    closeLine(line);
    throw channelError(thrown, { channel, offset: 0 }, 'none');
  }
}

/**
 * Device state beside the pages: take a buffer, fill it, send it. It goes on whatever channel has the shortest queue, no SYNC holds it up, and when
 * the kernel has it the buffer is free again.
 */
export class SendChannels extends PageChannels {
  #state: SentState | undefined;
  #arena: StateArena | undefined;

  /**
   * Starts the threads. Throws NATIVE_UNAVAILABLE, DATAPLANE_UNAVAILABLE; nothing is left open then.
   */
  static async start(options: SendOptions): Promise<SendChannels> {
    const { lines, ram, compression, failed } = options;
    const channels = new SendChannels(lines.length, ram.pageSize, failed);
    channels.#state = options.state;
    channels.#arena = options.state && StateArena.make(options.state.buffers);
    const spawn = (channel: number) => channels.#spawn(options, channel, lines[channel]!);
    await channels.group.open(lines.length, compression, spawn, (channel) => closeLine(lines[channel]!));
    return channels;
  }

  #spawn(options: SendOptions, channel: number, line: Line): ChannelThread {
    const { compression, level, findZeroPages } = options;
    let ram: SharedRam;
    try {
      ram = this.group.hold(options.ram);
    } catch (thrown) {
      closeLine(line);
      throw thrown;
    }
    const arena = this.#arena?.shared;
    const start: SendStart = {
      channel,
      name: `mig/src/send_${channel}`,
      line,
      ram,
      compression,
      level,
      findZeroPages,
      ring: this.rings[channel]!.shared,
      offset: MULTIFD_INITIAL_BYTES,
      state: arena && { devices: this.#state!.devices, arena },
    };
    return new ChannelThread(takeThread('send'), start, this.group.reports(channel));
  }

  /** A free buffer; undefined if there is none: call again after `stateRoom`. */
  takeBuffer(): OutgoingBuffer | undefined {
    const arena = this.#arenaOrThrow();
    const buffer = arena.take();
    return buffer < 0 ? undefined : { buffer, bytes: arena.bytes(buffer) };
  }

  /** Resolves when a buffer is free. Throws what has ended the channels. */
  stateRoom(): Promise<void> {
    const arena = this.#arenaOrThrow();
    return this.group.wait(() => arena.want());
  }

  /**
   * Sends the first `length` bytes of the buffer as packet `index` of the device (its place in `devices`); of one device they count from 0. `isConfig`:
   * its configuration, the last one. False if all queues are full: call again after `room`, the buffer is still the caller's.
   */
  sendState(device: number, index: number, isConfig: boolean, { buffer }: OutgoingBuffer, length: number): boolean {
    assert(this.#state?.devices[device] !== undefined, 'the device is one of those that were announced');
    assert(length >= 0 && length <= MULTIFD_DEVICE_BYTES_MAX, 'what is sent fits a packet');
    const channel = this.shortest();
    if (channel < 0) return false;
    const slot = this.take(channel);
    slot[BATCH.BLOCK] = STATE;
    slot[STATE_BUFFER.DEVICE] = device;
    slot[STATE_BUFFER.BUFFER] = buffer;
    slot[STATE_BUFFER.INDEX] = index;
    slot[STATE_BUFFER.IS_CONFIG] = isConfig ? 1 : 0;
    slot[STATE_BUFFER.LENGTH] = length;
    this.deliver(channel);
    return true;
  }

  /** It is not needed after all. */
  dropBuffer({ buffer }: OutgoingBuffer): void {
    if (this.#arenaOrThrow().free(buffer)) this.group.settle();
  }

  #arenaOrThrow(): StateArena {
    assert(this.#arena !== undefined, 'the channels were started for device state');
    return this.#arena;
  }
}
