/**
 * The sender's staging area in front of a channel. A hot loop writes through `buffer`, `pos` and `limit` itself:
 *
 *     if (!output.room(n)) { const wait = output.flush(); if (wait !== undefined) await wait; }
 *     output.buffer.copy/set(..., output.pos); output.pos += n;
 *
 * Where the channel can send from memory directly (`refers`), `refer` puts a piece of memory into the stream without a copy.
 *
 * A flush hands the filled buffer to the channel and goes on in the next free one, so the kernel copies one buffer while the loop fills
 * another. After a flush that returns a promise nothing may be touched until it settles.
 */
import { asError, nowMs, WakeUp, yieldToEventLoop } from '../base/index.ts';
import { addressOf, IoVector } from '../native/index.ts';
import type { Channel, DirectTransfer } from './channel.ts';
import { closedHere } from './errors.ts';
import { Pacer } from './pacer.ts';

export interface ChannelOutputOptions {
  /** Size of one staging buffer, bytes. */
  readonly bufferBytes?: number;
  readonly bufferCount?: number;
  /** Bytes per second; 0 = unlimited. */
  readonly rateLimit?: number;
}

const BUFFER_BYTES = 512 * 1024;
const BUFFER_COUNT = 3;

/** Shaped output goes out in pieces of about this much time, so that it is smooth; never less than one largest page record. */
const SHAPED_PIECE_SECONDS = 0.02;
const SHAPED_PIECE_BYTES_MIN = 72 * 1024;

/** What a write of the ordinary kind carries while the kernel takes no more directly. */
const BOUNCE_BYTES = 64 * 1024;

/** A socket that takes everything at once never lets the event loop turn by itself: after this many bytes it turns. */
const TURN_BYTES = 4 * 1024 * 1024;

export class ChannelOutput {
  buffer: Buffer;
  /** Next byte to write in `buffer`. */
  pos = 0;
  /** `pos` must not pass it. */
  limit: number;
  readonly channel: Channel;
  /** Staged bytes and referred memory, in order; undefined if the channel cannot send from memory. */
  readonly #vector: IoVector | undefined;
  readonly #direct: DirectTransfer | undefined;
  readonly #bounce: Buffer | undefined;
  #bufferAddress = 0;
  /** Up to there the buffer is in the vector. */
  #listed = 0;
  /** Bytes referred to since the last flush. */
  #referred = 0;
  readonly #free: Buffer[] = [];
  readonly #pacer = new Pacer();
  /** Stream offset of `buffer[0]`. */
  #base = 0;
  #inFlight = 0;
  #sinceTurn = 0;
  /** An ordinary write of what could not be sent directly is under way. */
  #bouncing = false;
  #failure: Error | undefined;
  /** Wakes whoever waits: a write has settled, the channel has closed, the rate has changed. */
  readonly #news = new WakeUp();

  constructor(channel: Channel, options: ChannelOutputOptions = {}) {
    const { bufferBytes = BUFFER_BYTES, bufferCount = BUFFER_COUNT, rateLimit = 0 } = options;
    this.channel = channel;
    this.#direct = channel.direct;
    if (channel.direct !== undefined) {
      this.#vector = new IoVector();
      this.#bounce = Buffer.from(new ArrayBuffer(BOUNCE_BYTES));
    }
    for (let i = 1; i < bufferCount; i++) this.#free.push(Buffer.from(new ArrayBuffer(bufferBytes)));
    this.buffer = Buffer.from(new ArrayBuffer(bufferBytes));
    if (this.#vector !== undefined) this.#bufferAddress = addressOf(this.buffer);
    this.#pacer.rate = rateLimit;
    this.limit = this.#pieceBytes();
    channel.closed.then(() => {
      this.#failure ??= closedHere({ channel: channel.label, ...channel.counters });
      this.#news.wake();
    });
  }

  /** Offset in the stream of the next byte to be written, bytes from the first one. */
  get offset(): number {
    return this.#base + this.#referred + this.pos;
  }

  /** Bytes that have been staged and that the kernel has not taken. */
  get unsent(): number {
    return this.offset - this.channel.counters.bytesWritten;
  }

  /** Whether the channel holds bytes that the peer has not taken yet. */
  get waitsForPeer(): boolean {
    return this.#inFlight > 0 || this.#bouncing;
  }

  /** Bytes per second; 0 = unlimited. May change at any time; a wait under way is measured anew. */
  get rateLimit(): number {
    return this.#pacer.rate;
  }

  set rateLimit(bytesPerSecond: number) {
    this.#pacer.rate = bytesPerSecond;
    this.#news.wake();
  }

  /** Whether `refer` may be used. */
  get refers(): boolean {
    return this.#vector !== undefined;
  }

  /** How many pieces `refer` takes before the next flush. */
  get referRoom(): number {
    if (this.#vector === undefined || this.#referred >= this.#pieceBytes()) return 0;
    return (this.#vector.capacity - this.#vector.count - 1) >> 1;
  }

  /**
   * Puts `length` bytes of memory at `address` into the stream behind what is staged. They are read when the kernel takes them: what changes
   * until then goes out as it is then, torn or not. The memory must stay until the flush is over.
   */
  refer(address: number, length: number): void {
    this.#list();
    this.#vector!.push(address, length);
    this.#referred += length;
  }

  /** What has been staged since the last piece becomes a piece of the vector. */
  #list(): void {
    if (this.pos === this.#listed) return;
    this.#vector!.push(this.#bufferAddress + this.#listed, this.pos - this.#listed);
    this.#listed = this.pos;
  }

  /** True if `byteCount` bytes fit at `pos`. At most 72 KiB may be asked for. */
  room(byteCount: number): boolean {
    return this.pos + byteCount <= this.limit;
  }

  /**
   * Hands what is staged to the channel. Undefined: go on at once. A promise: wait for it; it settles when a buffer is free and
   * the rate allows, and rejects with the channel's TransportError, also that of an earlier write.
   */
  flush(): Promise<void> | undefined {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this.pos === 0) return undefined;
    if (this.#vector !== undefined && this.#direct !== undefined) return this.#flushVector(this.#vector, this.#direct);
    if (this.#pacer.rate !== 0 && this.#pacer.delayMs(nowMs()) > 0) return this.#flushWaiting();
    this.#send();
    if (this.#sinceTurn >= TURN_BYTES || !this.#takeBuffer()) return this.#nextBuffer();
    return undefined;
  }

  /** Stages `bytes` (a copy) and flushes as buffers fill. */
  async put(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      const count = Math.min(bytes.length - done, this.limit - this.pos);
      this.buffer.set(bytes.subarray(done, done + count), this.pos);
      this.pos += count;
      done += count;
      if (this.pos === this.limit) await this.flush();
    }
  }

  /** Resolves when the channel has taken every byte staged so far. */
  async drained(): Promise<void> {
    await this.flush();
    while (this.#inFlight > 0 && this.#failure === undefined) await this.#news.next();
    if (this.#failure !== undefined) throw this.#failure;
  }

  #flushVector(vector: IoVector, direct: DirectTransfer): Promise<void> | undefined {
    this.#list();
    const byteCount = vector.byteLength;
    this.#sinceTurn += byteCount;
    const shaped = this.#pacer.rate !== 0 && this.#pacer.delayMs(nowMs()) > 0;
    if (shaped || this.#sinceTurn >= TURN_BYTES) return this.#flushVectorWaiting(vector, direct, byteCount);
    direct.send(vector);
    if (vector.byteLength > 0) return this.#flushVectorWaiting(vector, direct, byteCount);
    this.#vectorSent(vector, byteCount);
    return undefined;
  }

  /** The kernel takes no more: an ordinary write of the next bytes waits until it does, then the rest goes directly again. */
  async #flushVectorWaiting(vector: IoVector, direct: DirectTransfer, byteCount: number): Promise<void> {
    this.limit = 0;
    await this.#pace();
    if (this.#sinceTurn >= TURN_BYTES) {
      this.#sinceTurn = 0;
      await yieldToEventLoop();
    }
    const bounce = this.#bounce!;
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure;
      direct.send(vector);
      if (vector.byteLength === 0) break;
      this.#bouncing = true;
      await this.channel.write(bounce.subarray(0, vector.take(bounce)));
      this.#bouncing = false;
    }
    this.#vectorSent(vector, byteCount);
  }

  #vectorSent(vector: IoVector, byteCount: number): void {
    this.#pacer.spend(byteCount);
    this.#base += byteCount;
    this.#referred = 0;
    this.#listed = 0;
    this.pos = 0;
    this.limit = this.#pieceBytes();
    vector.clear();
  }

  /** Waits until the rate allows the next piece. */
  async #pace(): Promise<void> {
    for (;;) {
      const delayMs = this.#pacer.delayMs(nowMs());
      if (delayMs === 0) return;
      await this.#news.next(delayMs);
      if (this.#failure !== undefined) throw this.#failure;
    }
  }

  async #flushWaiting(): Promise<void> {
    await this.#pace();
    this.#send();
    await this.#nextBuffer();
  }

  #send(): void {
    const buffer = this.buffer;
    const byteCount = this.pos;
    this.#pacer.spend(byteCount);
    this.#base += byteCount;
    this.#sinceTurn += byteCount;
    this.#inFlight++;
    // No room until the next buffer is there: `offset` stays right and a write that does not wait finds no place.
    this.pos = 0;
    this.limit = 0;
    this.channel.write(buffer.subarray(0, byteCount)).then(
      () => {
        this.#inFlight--;
        this.#free.push(buffer);
        this.#news.wake();
      },
      (error) => {
        this.#inFlight--;
        this.#failure ??= asError(error);
        this.#news.wake();
      },
    );
  }

  #takeBuffer(): boolean {
    const next = this.#free.pop();
    if (next === undefined) return false;
    this.buffer = next;
    this.limit = this.#pieceBytes();
    return true;
  }

  async #nextBuffer(): Promise<void> {
    if (this.#sinceTurn >= TURN_BYTES) {
      this.#sinceTurn = 0;
      await yieldToEventLoop();
    }
    while (!this.#takeBuffer()) {
      if (this.#failure !== undefined) throw this.#failure;
      await this.#news.next();
    }
    if (this.#failure !== undefined) throw this.#failure;
  }

  #pieceBytes(): number {
    const rate = this.#pacer.rate;
    if (rate === 0) return this.buffer.length;
    return Math.min(this.buffer.length, Math.max(SHAPED_PIECE_BYTES_MIN, Math.floor(rate * SHAPED_PIECE_SECONDS)));
  }
}
