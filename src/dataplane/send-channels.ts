/**
 * The sending end of all channels. Main decides what goes when; which channel takes a batch is decided by which has the shortest queue.
 *
 * Order: a page of round n + 1 never overtakes its copy of round n, because `sync` stands between the rounds. On each channel all batches of round n
 * go before the SYNC packet and all of round n + 1 behind it; the receiver takes nothing behind a SYNC from any channel before every
 * channel has come to its own. Within a round no page goes twice. (test/dataplane/order.test.ts leaves SYNC out and sees it fail.)
 */
import { closeSync, writeSync } from 'node:fs';
import { assert } from '../base/index.ts';
import type { SharedRam } from '../machine/index.ts';
import { encodeMultifdInitial, MULTIFD_INITIAL_BYTES } from '../wire/multifd/index.ts';
import { BATCH, type BatchRing, batchRingOf, SLOTS, SYNC, slotOf } from './batch-ring.ts';
import { ChannelGroup, type ChannelInfo, type ChannelTotals } from './channel-group.ts';
import { ChannelThread } from './channel-thread.ts';
import { signal, Word } from './control-words.ts';
import type { ChannelError } from './errors.ts';
import type { PageCompression, SendStart } from './messages.ts';

/** When all queues were full: batches that may still wait in the shortest when main is called again. */
const ROOM_AT = SLOTS / 2;

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

export class SendChannels {
  readonly #group: ChannelGroup;
  readonly #rings: readonly BatchRing[];
  /** Batches given to each channel. */
  readonly #published: Int32Array;
  /** The batch being filled; -1: none. */
  #channel = -1;
  #slot: Uint32Array | undefined;
  #count = 0;
  readonly #pagesMax: number;
  #syncs = 0;
  #syncing = false;

  /**
   * Sends the initial packets, at once, and starts the threads. Throws NATIVE_UNAVAILABLE, DATAPLANE_UNAVAILABLE, DATAPLANE_LOST; nothing is
   * left open then.
   */
  static async start(options: SendOptions): Promise<SendChannels> {
    const channels = new SendChannels(options);
    await channels.#group.open(options.fds, options.ram, options.compression, (channel, fd, ram) =>
      channels.#spawn({ ...options, ram }, channel, fd),
    );
    return channels;
  }

  private constructor({ fds, ram, failed }: SendOptions) {
    assert(fds.length >= 1 && fds.length <= 255, 'there are 1 to 255 channels');
    this.#group = new ChannelGroup(failed);
    this.#rings = fds.map(() => batchRingOf(ram.pageSize));
    this.#pagesMax = this.#rings[0]!.pagesMax;
    this.#published = new Int32Array(fds.length);
  }

  #spawn(options: SendOptions, channel: number, fd: number): ChannelThread {
    const { ram, compression, level, findZeroPages } = options;
    try {
      // By main: a QEMU that looks at who connects waits for these bytes, and does nothing else. The empty socket takes them at once.
      writeSync(fd, encodeMultifdInitial(channel, options.uuid));
    } catch (thrown) {
      closeSync(fd);
      throw thrown;
    }
    const start = { channel, name: `mig/src/send_${channel}`, fd };
    const ring = this.#rings[channel]!.shared;
    const offset = MULTIFD_INITIAL_BYTES;
    const more = (control: SharedArrayBuffer): Omit<SendStart, keyof typeof start> => {
      return { ram, compression, level, findZeroPages, control, ring, offset };
    };
    const entry = new URL('./send-thread.js', import.meta.url);
    return new ChannelThread(entry, start, more, this.#group.reports(channel));
  }

  /**
   * Page `page` of `block` is to be sent, as it is when its batch is sent. False if all queues are full: call again after `room`. Not while
   * a `sync` is under way.
   */
  add(block: number, page: number): boolean {
    assert(!this.#syncing, 'no page between the SYNC packets of a point');
    if (this.#slot !== undefined && (this.#slot[BATCH.BLOCK] !== block || this.#count === this.#pagesMax))
      this.#publish();
    if (this.#slot === undefined && !this.#begin(block)) return false;
    this.#slot![BATCH.PAGES + this.#count++] = page;
    return true;
  }

  /** Pages in the batch that is being filled. */
  get unsentPages(): number {
    return this.#count;
  }

  /** Resolves when `add` has room again. Throws what has ended the channels. */
  room(): Promise<void> {
    for (const { control } of this.#group.threads) Atomics.store(control.words, Word.WANTED, ROOM_AT);
    // Asked after the words are stored: a thread that was done with a batch before it saw them has left that much more room.
    return this.#group.wait(() => this.#group.threads.some((_, channel) => this.#waiting(channel) <= ROOM_AT));
  }

  /**
   * Ends the batch and sends a SYNC packet on every channel, behind all that was added. Resolves when the kernel has taken them. Throws what has
   * ended the channels.
   */
  async sync(): Promise<void> {
    assert(!this.#syncing, 'one sync at a time');
    if (this.#slot !== undefined) this.#publish();
    this.#syncing = true;
    const sync = ++this.#syncs;
    for (const channel of this.#rings.keys()) {
      this.#take(channel)[BATCH.BLOCK] = SYNC;
      this.#deliver(channel);
    }
    await this.#group.wait(() => this.#group.threads.every((thread) => thread.syncs === sync));
    this.#syncing = false;
  }

  get totals(): ChannelTotals {
    return this.#group.totals;
  }

  get threads(): ChannelInfo[] {
    return this.#group.info;
  }

  /** Orderly end, after the last sync: threads joined, connections closed. Throws what has ended the channels before. */
  async end(): Promise<void> {
    assert(this.#count === 0, 'pages were added behind the last sync');
    for (const thread of this.#group.threads) thread.stopSending();
    await this.#group.joined();
    if (this.#group.failure !== undefined) throw this.#group.failure;
  }

  /** Ends everything at once, whatever it waits for; `closed` settles soon after. Idempotent. */
  cancel(reason?: unknown): void {
    this.#group.cancel(reason);
  }

  /** After `cancel` or a failure: threads joined, descriptors closed. Never throws. */
  closed(): Promise<void> {
    return this.#group.joined();
  }

  #begin(block: number): boolean {
    let best = -1;
    let least = SLOTS;
    for (let channel = 0; channel < this.#rings.length; channel++) {
      const waiting = this.#waiting(channel);
      if (waiting < least) {
        best = channel;
        least = waiting;
      }
    }
    if (best < 0) return false;
    this.#channel = best;
    this.#slot = this.#take(best);
    this.#slot[BATCH.BLOCK] = block;
    return true;
  }

  #publish(): void {
    this.#slot![BATCH.COUNT] = this.#count;
    this.#slot = undefined;
    this.#count = 0;
    this.#deliver(this.#channel);
  }

  #waiting(channel: number): number {
    const done = Atomics.load(this.#group.threads[channel]!.control.words, Word.DONE);
    return (this.#published[channel]! - done) | 0;
  }

  #take(channel: number): Uint32Array {
    return slotOf(this.#rings[channel]!, this.#published[channel]! >>> 0);
  }

  #deliver(channel: number): void {
    const { words } = this.#group.threads[channel]!.control;
    Atomics.store(words, Word.PUBLISHED, ++this.#published[channel]!);
    signal(words);
  }
}
