/** Growing big-endian byte builder for headers, commands and device state. Not for the page path. */
export class Writer {
  #bytes: Buffer;
  #length = 0;

  constructor(sizeHint = 256) {
    this.#bytes = Buffer.allocUnsafe(sizeHint);
  }

  get length(): number {
    return this.#length;
  }

  /** The bytes written so far; a view until the next write. */
  bytes(): Buffer {
    return this.#bytes.subarray(0, this.#length);
  }

  /** Forgets what was written; `bytes()` given out before is overwritten by what comes next. */
  clear(): void {
    this.#length = 0;
  }

  #room(count: number): number {
    const at = this.#length;
    if (at + count > this.#bytes.length) {
      const grown = Buffer.allocUnsafe(Math.max(this.#bytes.length * 2, at + count));
      this.#bytes.copy(grown, 0, 0, at);
      this.#bytes = grown;
    }
    this.#length = at + count;
    return at;
  }

  u8(value: number): this {
    const at = this.#room(1);
    this.#bytes[at] = value;
    return this;
  }

  u16(value: number): this {
    const at = this.#room(2);
    this.#bytes.writeUInt16BE(value, at);
    return this;
  }

  u32(value: number): this {
    const at = this.#room(4);
    this.#bytes.writeUInt32BE(value, at);
    return this;
  }

  u64(value: bigint | number): this {
    const at = this.#room(8);
    this.#bytes.writeBigUInt64BE(BigInt(value), at);
    return this;
  }

  raw(bytes: Uint8Array): this {
    const at = this.#room(bytes.length);
    this.#bytes.set(bytes, at);
    return this;
  }

  zeros(count: number): this {
    const at = this.#room(count);
    this.#bytes.fill(0, at, at + count);
    return this;
  }

  /** u8 length and the text as latin1. Throws RangeError above 255 bytes: names are checked where they are made. */
  cstr(text: string): this {
    if (text.length > 255) throw new RangeError(`name longer than 255 bytes: ${text}`);
    this.u8(text.length);
    return this.raw(Buffer.from(text, 'latin1'));
  }
}
