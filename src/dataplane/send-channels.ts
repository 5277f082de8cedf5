/**
 * The sending end of all channels: batches become packets, straight from guest memory. A receiver takes nothing behind a SYNC packet from any
 * channel before every channel has come to its own.
 */
import { closeSync, writeSync } from 'node:fs';
import type { SharedRam } from '../machine/index.ts';
import { encodeMultifdInitial, MULTIFD_INITIAL_BYTES } from '../wire/multifd/index.ts';
import { ChannelThread } from './channel-thread.ts';
import type { ChannelError } from './errors.ts';
import type { PageCompression, SendStart } from './messages.ts';
import { PageChannels } from './page-channels.ts';

export interface SendOptions {
  /** Connected sockets, channel 0 first; 1..255 of them. They are the channels' from here on, also if `start` throws. */
  readonly fds: readonly number[];
  /** Of the VM, 16 bytes; undefined if it has none. */
  readonly uuid: Uint8Array | undefined;
  readonly ram: SharedRam;
  readonly compression: PageCompression;
  /** zlib 0..9, zstd 1..20. */
  readonly level: number;
  /** Zero pages are found by the channels and listed (receivers from QEMU 9.0 on); else they are sent like all pages. */
  readonly findZeroPages: boolean;
  /** Called once, when a channel fails by itself. All channels are closed by then, or soon. */
  readonly failed: (error: ChannelError) => void;
}

export class SendChannels extends PageChannels {
  /**
   * Sends the initial packets, at once, and starts the threads. Throws NATIVE_UNAVAILABLE, DATAPLANE_UNAVAILABLE, DATAPLANE_LOST; nothing is
   * left open then.
   */
  static async start(options: SendOptions): Promise<SendChannels> {
    const { fds, ram, compression, failed } = options;
    const channels = new SendChannels(fds.length, ram.pageSize, failed);
    const spawn = (channel: number) => channels.#spawn(options, channel, fds[channel]!);
    await channels.group.open(fds.length, compression, spawn, (channel) => closeSync(fds[channel]!));
    return channels;
  }

  #spawn(options: SendOptions, channel: number, fd: number): ChannelThread {
    const { compression, level, findZeroPages } = options;
    let ram: SharedRam;
    try {
      ram = this.group.hold(options.ram);
      // By main: a QEMU that looks at who connects waits for these bytes, and does nothing else. The empty socket takes them at once.
      writeSync(fd, encodeMultifdInitial(channel, options.uuid));
    } catch (thrown) {
      closeSync(fd);
      throw thrown;
    }
    const start = { channel, name: `mig/src/send_${channel}`, fd };
    const ring = this.rings[channel]!.shared;
    const offset = MULTIFD_INITIAL_BYTES;
    const more = (control: SharedArrayBuffer): Omit<SendStart, keyof typeof start> => {
      return { ram, compression, level, findZeroPages, control, ring, offset };
    };
    const entry = new URL('./send-thread.js', import.meta.url);
    return new ChannelThread(entry, start, more, this.group.reports(channel));
  }
}
