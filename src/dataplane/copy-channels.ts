/**
 * Channels without a wire: each copies pages between memory and a mapped-ram file, at the places they have there. This is what multifd is with
 * mapped-ram: no packets, no initial packets, and a file that does not show how many wrote it (qemu-wire 8.1).
 *
 * A SYNC is done when everything before it is in its place, so that of two versions of a page the later one is the later write.
 */
import type { SharedRam } from '../machine/index.ts';
import { ChannelThread } from './channel-thread.ts';
import type { ChannelError } from './errors.ts';
import type { CopyStart } from './messages.ts';
import { PageChannels } from './page-channels.ts';
import { takeThread } from './ready-thread.ts';

export interface CopyOptions {
  /** 1..255. */
  readonly count: number;
  /** Blocks of both in the same order: a page keeps its numbers. */
  readonly from: SharedRam;
  readonly to: SharedRam;
  /** Called once, when a channel fails by itself: DATAPLANE_FILE. All threads have ended by then, or end soon. */
  readonly failed: (error: ChannelError) => void;
}

export class CopyChannels extends PageChannels {
  /** Throws NATIVE_UNAVAILABLE. */
  static async start(options: CopyOptions): Promise<CopyChannels> {
    const { count, from, failed } = options;
    const channels = new CopyChannels(count, from.pageSize, failed);
    await channels.group.open(
      count,
      'none',
      (channel) => channels.#spawn(options, channel),
      () => {},
    );
    return channels;
  }

  #spawn(options: CopyOptions, channel: number): ChannelThread {
    const from = this.group.hold(options.from);
    const to = this.group.hold(options.to);
    // As QEMU's threads of the same work.
    const name = to.kind === 'file' ? `mig/src/send_${channel}` : `mig/dst/recv_${channel}`;
    const start: CopyStart = { channel, name, from, to, ring: this.rings[channel]!.shared };
    return new ChannelThread(takeThread('copy'), start, this.group.reports(channel));
  }
}
