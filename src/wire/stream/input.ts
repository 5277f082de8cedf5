/**
 * Bytes as they arrive, made contiguous for a decoder: holds the Reader that parsers read from. Chunks are read where they lie; only
 * what the decoder left unread is ever moved:
 *
 * ```
 *             headroom        chunk (the transport's buffer)
 *   ........[tail]|[new bytes .............................]      tail of the last chunk fits in front: one contiguous run
 *
 *   [tail][chunk][chunk][chunk                ...free     ]       an element larger than that: grows in a buffer of our own
 * ```
 *
 * A chunk is valid only until the transport is asked for the next one: call `release` before asking, `add` with what came.
 */
import { Reader } from '../../base/index.ts';
import { overLimit } from '../errors.ts';
import { DEVICE_BODY_BYTES_MAX } from '../limits.ts';

/** `bytes.subarray(start, end)` are new; the bytes before `start` are scratch, at least CHUNK_HEADROOM of them (or `start` if less). */
export interface InputChunk {
  readonly bytes: Buffer;
  readonly start: number;
  readonly end: number;
}

export interface StreamInputOptions {
  /** Stream offset of the first byte; for `file:PATH,offset=N` that is N, as offsets in mapped-ram headers are absolute. */
  readonly origin?: number;
  /** Unread bytes kept at most: above the largest element (default: a device body and what belongs to it). */
  readonly bytesMax?: number;
}

/** Longest tail that goes in front of the next chunk (CHUNK_HEADROOM of transport). */
const HEADROOM = 8 * 1024;
/** A device body of the largest size may end inside a chunk of this size, bytes. */
const CHUNK_BYTES_MAX = 16 * 1024 * 1024;
/** The private buffer is kept for reuse up to this size, bytes. */
const KEPT_MAX = 1024 * 1024;

export class StreamInput {
  readonly reader: Reader;
  readonly #bytesMax: number;
  /** Tails and large elements; `reader.bytes` is this or the last chunk. */
  #own: Buffer = Buffer.allocUnsafeSlow(HEADROOM);

  constructor(label: string, options: StreamInputOptions = {}) {
    this.reader = new Reader(Buffer.alloc(0), label, { origin: options.origin ?? 0 });
    this.#bytesMax = options.bytesMax ?? DEVICE_BODY_BYTES_MAX + CHUNK_BYTES_MAX;
  }

  /** Takes what is unread out of the last chunk, so that its buffer may be filled again. */
  release(): void {
    const reader = this.reader;
    if (reader.bytes === this.#own) return;
    const tail = reader.available;
    if (tail > this.#own.length || this.#own.length > KEPT_MAX) {
      this.#own = Buffer.allocUnsafeSlow(Math.max(HEADROOM, 2 * tail));
    }
    reader.bytes.copy(this.#own, 0, reader.pos, reader.end);
    this.#place(this.#own, 0, tail);
  }

  /** Appends a chunk. Throws WIRE_LIMIT if more would stay unread than `bytesMax`. */
  add(chunk: InputChunk): void {
    this.release();
    const reader = this.reader;
    const tail = reader.available;
    const size = chunk.end - chunk.start;
    if (tail <= HEADROOM && tail <= chunk.start) {
      const at = chunk.start - tail;
      reader.bytes.copy(chunk.bytes, at, reader.pos, reader.end);
      this.#place(chunk.bytes, at, chunk.end);
      return;
    }
    if (tail + size > this.#bytesMax) {
      throw overLimit(reader, reader.offset, 'input', 'bytes of one element', this.#bytesMax, tail + size);
    }
    this.#makeRoom(size);
    chunk.bytes.copy(this.#own, reader.end, chunk.start, chunk.end);
    reader.end += size;
  }

  /**
   * What was unread was taken away, and `skipped` bytes from there on were received by other means; reading goes on with `bytes`, which stay
   * as they are until `release`.
   */
  replace(skipped: number, bytes: Buffer): void {
    const reader = this.reader;
    reader.origin = reader.offset + skipped;
    reader.bytes = bytes;
    reader.pos = 0;
    reader.end = bytes.length;
  }

  /** No more bytes will come: what the decoder still wants is missing (WIRE_TRUNCATED instead of STARVED). */
  finish(): void {
    this.reader.final = true;
  }

  /** Continues at stream offset `offset` without the bytes up to there (a file that was positioned anew). */
  seek(offset: number): void {
    this.reader.bytes = this.#own;
    this.reader.pos = 0;
    this.reader.end = 0;
    this.reader.origin = offset;
  }

  /** Room for `size` bytes behind the unread ones, in the private buffer. Doubles, so that growing costs linear time. */
  #makeRoom(size: number): void {
    const reader = this.reader;
    if (reader.end + size <= this.#own.length) return;
    const tail = reader.available;
    const offset = reader.offset;
    if (2 * (tail + size) <= this.#own.length) {
      this.#own.copyWithin(0, reader.pos, reader.end);
    } else {
      const grown = Buffer.allocUnsafeSlow(2 * (tail + size));
      this.#own.copy(grown, 0, reader.pos, reader.end);
      this.#own = grown;
      reader.bytes = grown;
    }
    reader.pos = 0;
    reader.end = tail;
    reader.origin = offset;
  }

  /** The unread bytes are now at `bytes[pos..end)`. */
  #place(bytes: Buffer, pos: number, end: number): void {
    const reader = this.reader;
    const offset = reader.offset;
    reader.bytes = bytes;
    reader.pos = pos;
    reader.end = end;
    reader.origin = offset - pos;
  }
}
