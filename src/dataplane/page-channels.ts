/**
 * Channels that pages are given to, batch by batch. Main decides what goes when; which channel takes a batch is decided by which has the shortest
 * queue.
 *
 * Order: a page of round n + 1 never overtakes its copy of round n, because `sync` stands between the rounds, and within a round no page goes
 * twice. On each channel all batches of round n come before the SYNC and all of round n + 1 behind it; what a SYNC makes sure of is the
 * kind's to say. (test/dataplane/order.test.ts leaves SYNC out and sees it fail.)
 */
import { assert } from '../base/index.ts';
import { BATCH, type BatchRing, batchRingOf, SLOTS, SYNC, slotOf } from './batch-ring.ts';
import { ChannelGroup, type ChannelInfo, type ChannelTotals } from './channel-group.ts';
import { signal, Word } from './control-words.ts';
import type { ChannelError } from './errors.ts';

/** When all queues were full: batches that may still wait in the shortest when main is called again. */
const ROOM_AT = SLOTS / 2;

export abstract class PageChannels {
  protected readonly group: ChannelGroup;
  protected readonly rings: readonly BatchRing[];
  /** Batches given to each channel. */
  readonly #published: Int32Array;
  /** The batch being filled; -1: none. */
  #channel = -1;
  #slot: Uint32Array | undefined;
  #count = 0;
  readonly #pagesMax: number;
  #syncs = 0;
  #syncing = false;

  protected constructor(count: number, pageSize: number, failed: (error: ChannelError) => void) {
    assert(count >= 1 && count <= 255, 'there are 1 to 255 channels');
    this.group = new ChannelGroup(failed);
    this.rings = Array.from({ length: count }, () => batchRingOf(pageSize));
    this.#pagesMax = this.rings[0]!.pagesMax;
    this.#published = new Int32Array(count);
  }

  /**
   * Page `page` of `block` is to go, as it is when its batch goes. False if all queues are full: call again after `room`. Not while a `sync`
   * is under way.
   */
  add(block: number, page: number): boolean {
    assert(!this.#syncing, 'no page between the SYNCs of a point');
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

  /** Resolves when `add`, or whoever else waits, has room again. Throws what has ended the channels. */
  room(): Promise<void> {
    return this.group.wait(() => {
      // At each look anew: a thread says it once, and by then someone else may have taken the room. Before the look: a thread that was done with a batch
      // before it saw the words has left that much more room.
      for (const { control } of this.group.threads) Atomics.store(control.words, Word.WANTED, ROOM_AT);
      return this.group.threads.some((_, channel) => this.#waiting(channel) <= ROOM_AT);
    });
  }

  /**
   * Ends the batch and has every channel come to a SYNC behind all that was added. Resolves when they have. Throws what has ended the channels.
   */
  async sync(): Promise<void> {
    assert(!this.#syncing, 'one sync at a time');
    if (this.#slot !== undefined) this.#publish();
    this.#syncing = true;
    const sync = ++this.#syncs;
    for (const channel of this.rings.keys()) {
      this.take(channel)[BATCH.BLOCK] = SYNC;
      this.deliver(channel);
    }
    await this.group.wait(() => this.group.threads.every((thread) => thread.syncs === sync));
    this.#syncing = false;
  }

  /** Whether batches were given to threads that are not sent yet. */
  get busy(): boolean {
    return this.group.threads.some((_, channel) => this.#waiting(channel) > 0);
  }

  get totals(): ChannelTotals {
    return this.group.totals;
  }

  get threads(): ChannelInfo[] {
    return this.group.info;
  }

  /** Orderly end, after the last sync: threads joined, descriptors closed. Throws what has ended the channels before. */
  async end(): Promise<void> {
    assert(this.#count === 0, 'pages were added behind the last sync');
    for (const thread of this.group.threads) thread.stopAtEnd();
    await this.group.joined();
    if (this.group.failure !== undefined) throw this.group.failure;
  }

  /** Ends everything at once, whatever it waits for; `closed` settles soon after. Idempotent. */
  cancel(reason?: unknown): void {
    this.group.cancel(reason);
  }

  /** After `cancel` or a failure: threads joined, descriptors closed. Never throws. */
  closed(): Promise<void> {
    return this.group.joined();
  }

  #begin(block: number): boolean {
    const channel = this.#shortest();
    if (channel < 0) return false;
    this.#channel = channel;
    this.#slot = this.take(channel);
    this.#slot[BATCH.BLOCK] = block;
    return true;
  }

  /** Channel whose next slot may be taken for something else than pages; -1: all queues are full. */
  protected shortest(): number {
    const channel = this.#shortest();
    if (this.#slot === undefined || channel !== this.#channel) return channel;
    // The batch that is being filled has that slot.
    this.#publish();
    return this.#shortest();
  }

  /** -1: all are full. */
  #shortest(): number {
    let best = -1;
    let least = SLOTS;
    for (let channel = 0; channel < this.rings.length; channel++) {
      const waiting = this.#waiting(channel);
      if (waiting < least) {
        best = channel;
        least = waiting;
      }
    }
    return best;
  }

  #publish(): void {
    this.#slot![BATCH.COUNT] = this.#count;
    this.#slot = undefined;
    this.#count = 0;
    this.deliver(this.#channel);
  }

  #waiting(channel: number): number {
    const done = Atomics.load(this.group.threads[channel]!.control.words, Word.DONE);
    return (this.#published[channel]! - done) | 0;
  }

  protected take(channel: number): Uint32Array {
    return slotOf(this.rings[channel]!, this.#published[channel]! >>> 0);
  }

  protected deliver(channel: number): void {
    const { words } = this.group.threads[channel]!.control;
    Atomics.store(words, Word.PUBLISHED, ++this.#published[channel]!);
    signal(words);
  }
}
