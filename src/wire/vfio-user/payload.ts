/** The payload of one whole message, read from front to back; little endian. What it lacks is an error of the message, not an end of the stream. */
import { unexpected, type WireError } from '../errors.ts';

export class Payload {
  readonly stream: string;
  /** Offset in the stream of `bytes[0]`. */
  readonly origin: number;
  /** For errors: the message that this is the payload of. */
  readonly path: string;
  readonly bytes: Buffer;
  pos = 0;

  constructor(bytes: Buffer, path: string, stream = 'vfio-user', origin = 0) {
    this.bytes = bytes;
    this.path = path;
    this.stream = stream;
    this.origin = origin;
  }

  /** Bytes that nothing has read yet. */
  get rest(): number {
    return this.bytes.length - this.pos;
  }

  /** Moves over `count` bytes and returns where they begin. Throws WireError if they are not there. */
  take(count: number, field: string): number {
    if (count > this.rest) {
      throw unexpected(this, this.origin + this.pos, this.path, field, `${count} bytes`, `${this.rest} bytes`);
    }
    const at = this.pos;
    this.pos += count;
    return at;
  }

  /** A view of the next `count` bytes: valid as long as the message is. */
  view(count: number, field: string): Buffer {
    const at = this.take(count, field);
    return this.bytes.subarray(at, at + count);
  }

  /** The error of a value that begins at `at`. */
  wrong(at: number, field: string, expected: string, found: string | number | bigint): WireError {
    return unexpected(this, this.origin + at, this.path, field, expected, found);
  }
}
