import { FerryError } from './error.ts';

/**
 * Thrown by a `Reader` that has run out of bytes while more may come. One object, no stack: who drives the decoder
 * catches it by identity, gets more bytes and decodes the record again from its mark.
 */
export const STARVED: unique symbol = Symbol('starved');

export interface ReadFault {
  readonly code: 'WIRE_TRUNCATED';
  readonly stream: string;
  /** Offset in the stream of the first byte that is missing, in bytes. */
  readonly offset: number;
  readonly wanted: number;
  readonly available: number;
}

/**
 * Cursor over bytes that have arrived; big endian, as the migration stream is. `bytes[pos]` is at stream offset
 * `origin + pos`. A reader whose `final` is set throws WIRE_TRUNCATED instead of STARVED.
 */
export class Reader {
  bytes: Buffer;
  pos: number;
  end: number;
  origin: number;
  final: boolean;
  readonly stream: string;

  constructor(bytes: Buffer, stream = 'stream', options: { final?: boolean; origin?: number } = {}) {
    this.bytes = bytes;
    this.pos = 0;
    this.end = bytes.length;
    this.origin = options.origin ?? 0;
    this.final = options.final ?? false;
    this.stream = stream;
  }

  get available(): number {
    return this.end - this.pos;
  }

  /** Offset in the stream of the next byte. */
  get offset(): number {
    return this.origin + this.pos;
  }

  /** Returns if `count` bytes are there; throws STARVED or WIRE_TRUNCATED otherwise. */
  need(count: number): void {
    if (this.end - this.pos >= count) return;
    if (!this.final) throw STARVED;
    const fault: ReadFault = {
      code: 'WIRE_TRUNCATED',
      stream: this.stream,
      offset: this.origin + this.end,
      wanted: count,
      available: this.end - this.pos,
    };
    throw new FerryError(
      fault,
      `${this.stream}: ends at offset ${fault.offset}: ${count} bytes wanted at offset ${this.offset}, ${fault.available} there`,
    );
  }

  u8(): number {
    this.need(1);
    return this.bytes[this.pos++]!;
  }

  /** The next byte, not consumed. */
  peekU8(): number {
    this.need(1);
    return this.bytes[this.pos]!;
  }

  u16(): number {
    this.need(2);
    const value = this.bytes.readUInt16BE(this.pos);
    this.pos += 2;
    return value;
  }

  u32(): number {
    this.need(4);
    const value = this.bytes.readUInt32BE(this.pos);
    this.pos += 4;
    return value;
  }

  /** An unsigned 64-bit value, exact. */
  u64(): bigint {
    this.need(8);
    const value = this.bytes.readBigUInt64BE(this.pos);
    this.pos += 8;
    return value;
  }

  /** `count` bytes as a view: valid only until the driver gets more bytes. */
  view(count: number): Buffer {
    this.need(count);
    const view = this.bytes.subarray(this.pos, this.pos + count);
    this.pos += count;
    return view;
  }

  skip(count: number): void {
    this.need(count);
    this.pos += count;
  }

  /** u8 length and that many bytes, as latin1 text (idstr, block names; QEMU puts no NUL). */
  cstr(): string {
    this.need(1);
    const length = this.bytes[this.pos]!;
    this.need(1 + length);
    const text = this.bytes.toString('latin1', this.pos + 1, this.pos + 1 + length);
    this.pos += 1 + length;
    return text;
  }
}
