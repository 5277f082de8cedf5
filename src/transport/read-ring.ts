/**
 * The reading half of a channel: a few large buffers that are filled in turn and handed to one reader in turn.
 *
 *     held by the reader | filled, waiting | being filled | free
 *
 * Each buffer has CHUNK_HEADROOM scratch bytes in front. The reader holds one buffer until it asks for the next; who fills
 * stops when the buffer to fill next is still held or waiting, which is the back pressure.
 */
import { assert } from '../base/index.ts';
import { CHUNK_HEADROOM, type Chunk } from './channel.ts';

interface Slot {
  readonly bytes: Buffer;
  /** The part to fill, after the headroom. */
  readonly space: Buffer;
  readonly start: number;
  end: number;
}

interface Waiter {
  resolve(chunk: Chunk | null): void;
  reject(error: Error): void;
}

export class ReadRing {
  readonly #slots: readonly Slot[];
  /** Slots filled and taken so far, counted without end: slot of number n is `n % length`. */
  #filled = 0;
  #taken = 0;
  #holding = false;
  #stopped = false;
  #outcome: { readonly error: Error | undefined } | undefined;
  #waiter: Waiter | undefined;
  /** Called when a buffer is free again after `commit` said that none is. */
  onRoom: () => void = () => {};

  constructor(slotBytes: number, slotCount: number) {
    this.#slots = Array.from({ length: slotCount }, () => {
      const bytes = Buffer.from(new ArrayBuffer(CHUNK_HEADROOM + slotBytes));
      return { bytes, space: bytes.subarray(CHUNK_HEADROOM), start: CHUNK_HEADROOM, end: CHUNK_HEADROOM };
    });
  }

  /** The buffer to fill now; the same one until `commit`. */
  get space(): Buffer {
    return this.#slots[this.#filled % this.#slots.length]!.space;
  }

  get full(): boolean {
    return this.#filled - this.#taken + (this.#holding ? 1 : 0) >= this.#slots.length;
  }

  /** `count` bytes have been put at the start of `space`. Returns false if filling must stop until `onRoom`. */
  commit(count: number): boolean {
    assert(!this.full, 'read ring filled beyond its room');
    const slot = this.#slots[this.#filled % this.#slots.length]!;
    slot.end = slot.start + count;
    this.#filled++;
    const waiter = this.#waiter;
    if (waiter !== undefined) {
      this.#waiter = undefined;
      waiter.resolve(this.#take());
    }
    this.#stopped = this.full;
    return !this.#stopped;
  }

  /** No more bytes come: after the waiting ones the reader gets null, or `error`. The first call counts. */
  finish(error?: Error): void {
    if (this.#outcome !== undefined) return;
    this.#outcome = { error };
    this.#settle();
  }

  /** The reader gets `error` at once, waiting bytes are dropped. */
  abort(error: Error): void {
    this.#outcome = { error };
    this.#taken = this.#filled;
    this.#settle();
  }

  tryRead(): Chunk | null | undefined {
    this.#release();
    if (this.#filled > this.#taken) return this.#take();
    if (this.#outcome === undefined) return undefined;
    if (this.#outcome.error !== undefined) throw this.#outcome.error;
    return null;
  }

  async read(): Promise<Chunk | null> {
    const chunk = this.tryRead();
    if (chunk !== undefined) return chunk;
    assert(this.#waiter === undefined, 'two reads of one channel at a time');
    return new Promise((resolve, reject) => {
      this.#waiter = { resolve, reject };
    });
  }

  #take(): Chunk {
    this.#holding = true;
    return this.#slots[this.#taken++ % this.#slots.length]!;
  }

  #release(): void {
    this.#holding = false;
    if (!this.#stopped || this.full) return;
    this.#stopped = false;
    this.onRoom();
  }

  #settle(): void {
    const waiter = this.#waiter;
    this.#waiter = undefined;
    if (this.#outcome?.error !== undefined) waiter?.reject(this.#outcome.error);
    else waiter?.resolve(null);
  }
}
