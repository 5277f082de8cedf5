/**
 * The sender's staging area in front of a channel. A hot loop writes through `buffer`, `pos` and `limit` itself:
 *
 *     if (!output.room(n)) { const wait = output.flush(); if (wait !== undefined) await wait; }
 *     output.buffer.copy/set(..., output.pos); output.pos += n;
 *
 * A flush hands the filled buffer to the channel and goes on in the next free one, so the kernel copies one buffer while the loop fills
 * another. After a flush that returns a promise nothing may be touched until it settles.
 */
import { asError, nowMs, yieldToEventLoop } from '../base/index.ts';
import type { Channel } from './channel.ts';
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

/** A socket that takes everything at once never lets the event loop turn by itself: after this many bytes it turns. */
const TURN_BYTES = 4 * 1024 * 1024;

export class ChannelOutput {
  buffer: Buffer;
  /** Next byte to write in `buffer`. */
  pos = 0;
  /** `pos` must not pass it. */
  limit: number;
  readonly channel: Channel;
  readonly #free: Buffer[] = [];
  readonly #pacer = new Pacer();
  /** Stream offset of `buffer[0]`. */
  #base = 0;
  #inFlight = 0;
  #sinceTurn = 0;
  #failure: Error | undefined;
  /** Wakes whoever waits: a write has settled, the channel has closed, the rate has changed. */
  #wake: () => void = () => {};

  constructor(channel: Channel, options: ChannelOutputOptions = {}) {
    const { bufferBytes = BUFFER_BYTES, bufferCount = BUFFER_COUNT, rateLimit = 0 } = options;
    this.channel = channel;
    for (let i = 1; i < bufferCount; i++) this.#free.push(Buffer.from(new ArrayBuffer(bufferBytes)));
    this.buffer = Buffer.from(new ArrayBuffer(bufferBytes));
    this.#pacer.rate = rateLimit;
    this.limit = this.#pieceBytes();
    channel.closed.then(() => {
      this.#failure ??= closedHere({ channel: channel.label, ...channel.counters });
      this.#wake();
    });
  }

  /** Offset in the stream of the next byte to be written, bytes from the first one. */
  get offset(): number {
    return this.#base + this.pos;
  }

  /** Bytes per second; 0 = unlimited. May change at any time; a wait under way is measured anew. */
  get rateLimit(): number {
    return this.#pacer.rate;
  }

  set rateLimit(bytesPerSecond: number) {
    this.#pacer.rate = bytesPerSecond;
    this.#wake();
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
    while (this.#inFlight > 0 && this.#failure === undefined) await this.#event();
    if (this.#failure !== undefined) throw this.#failure;
  }

  async #flushWaiting(): Promise<void> {
    for (;;) {
      const delayMs = this.#pacer.delayMs(nowMs());
      if (delayMs === 0) break;
      await this.#event(delayMs);
      if (this.#failure !== undefined) throw this.#failure;
    }
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
        this.#wake();
      },
      (error) => {
        this.#inFlight--;
        this.#failure ??= asError(error);
        this.#wake();
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
      await this.#event();
    }
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** The next wake-up, or `timeoutMs`. */
  #event(timeoutMs?: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = timeoutMs === undefined ? undefined : setTimeout(() => this.#wake(), Math.max(1, timeoutMs));
      this.#wake = () => {
        this.#wake = () => {};
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #pieceBytes(): number {
    const rate = this.#pacer.rate;
    if (rate === 0) return this.buffer.length;
    return Math.min(this.buffer.length, Math.max(SHAPED_PIECE_BYTES_MIN, Math.floor(rate * SHAPED_PIECE_SECONDS)));
  }
}
