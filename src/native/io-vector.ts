import { assert } from '../base/index.ts';
import { callFailed } from './errors.ts';
import { libc, needLibc } from './libc.ts';

/** What one call takes at most (IOV_MAX of Linux). */
export const IO_VECTOR_MAX = 1024;

const EINTR = 4;

/** Words of one struct iovec: address and length, two 32-bit halves each. */
const WORDS = 4;

/**
 * A list of pieces of memory for readv and writev: bytes go between a socket and guest memory without a copy in between. The memory must
 * stay alive while the list is in use; the list does not hold it. Nothing is allocated per piece.
 */
export class IoVector {
  readonly capacity: number;
  /** Pieces in the list, consumed ones included. */
  count = 0;
  /** Bytes of all pieces that are not consumed. */
  byteLength = 0;
  /** Error number of the last `writeTo` or `readFrom`, 0 if it had none: the kernel tells some errors only once. */
  errno = 0;
  #first = 0;
  readonly #words: Uint32Array;
  readonly #address: number;

  /** Only where `canVector()`. */
  constructor(capacity = IO_VECTOR_MAX) {
    const c = libc();
    assert(c !== null, 'vectored I/O is not available here');
    this.capacity = capacity;
    this.#words = new Uint32Array(new ArrayBuffer(capacity * WORDS * 4));
    this.#address = c.address(new Uint8Array(this.#words.buffer));
  }

  get full(): boolean {
    return this.count === this.capacity;
  }

  clear(): void {
    this.count = 0;
    this.byteLength = 0;
    this.#first = 0;
  }

  push(address: number, length: number): void {
    const at = this.count++ * WORDS;
    const words = this.#words;
    words[at] = address;
    words[at + 1] = address / 0x1_0000_0000;
    words[at + 2] = length;
    words[at + 3] = 0;
    this.byteLength += length;
  }

  /** Makes the last piece longer: the memory behind it is wanted too. Below 4 GiB in all. */
  extend(length: number): void {
    this.#words[(this.count - 1) * WORDS + 2]! += length;
    this.byteLength += length;
  }

  /** Copies as much of the first piece that is not consumed as fits into `into`, consumes it and returns how many bytes that were. */
  take(into: Uint8Array): number {
    const at = this.#first * WORDS;
    const length = Math.min(this.#words[at + 2]!, into.length);
    const c = libc()!;
    c.memcpy(c.address(into), this.#addressAt(at), length);
    this.consume(length);
    return length;
  }

  /** Address of the first byte that is not consumed, and how long its piece is; only while there is one. */
  get firstAddress(): number {
    return this.#addressAt(this.#first * WORDS);
  }

  get firstLength(): number {
    return this.#words[this.#first * WORDS + 2]!;
  }

  /** Copies as many bytes as there are, or fit, to the front of `into`, consumes them and returns how many they were. */
  gather(into: Uint8Array): number {
    const wanted = Math.min(this.byteLength, into.length);
    let done = 0;
    while (done < wanted) done += this.take(done === 0 ? into : into.subarray(done));
    return done;
  }

  #addressAt(at: number): number {
    return this.#words[at + 1]! * 0x1_0000_0000 + this.#words[at]!;
  }

  /** The first `bytes` are done. */
  consume(bytes: number): void {
    this.byteLength -= bytes;
    const words = this.#words;
    for (let left = bytes; left > 0; ) {
      const at = this.#first * WORDS;
      const length = words[at + 2]!;
      if (left < length) {
        const address = this.#addressAt(at) + left;
        words[at] = address;
        words[at + 1] = address / 0x1_0000_0000;
        words[at + 2] = length - left;
        return;
      }
      left -= length;
      this.#first++;
    }
  }

  /** Sends from the list to a non-blocking descriptor; the bytes taken are consumed. 0: none now, or an error that the next ordinary write tells. */
  writeTo(fd: number): number {
    const done = this.#call(libc()!.writev, fd);
    this.consume(done);
    return done;
  }

  /** Fills the list from a non-blocking descriptor; nothing is consumed. 0: nothing there, the end, or an error that the next ordinary read tells. */
  readFrom(fd: number): number {
    return this.#call(libc()!.readv, fd);
  }

  /** Sends to a descriptor that waits, at least one byte unless the list is empty; those sent are consumed. Throws NATIVE_CALL. */
  send(fd: number): number {
    return this.#wait('writev', fd);
  }

  /** Fills the list from a descriptor that waits; those received are consumed. 0: the peer has ended. Throws NATIVE_CALL. */
  receive(fd: number): number {
    return this.#wait('readv', fd);
  }

  #wait(name: 'readv' | 'writev', fd: number): number {
    const c = libc()!;
    for (;;) {
      const done = c[name](fd, this.#address + this.#first * WORDS * 4, this.count - this.#first);
      if (done >= 0) {
        this.consume(done);
        return done;
      }
      const errno = c.errno();
      if (errno !== EINTR) throw callFailed(name, errno);
    }
  }

  #call(call: (fd: number, vector: number, count: number) => number, fd: number): number {
    if (this.#first === this.count) return 0;
    for (;;) {
      const done = Number(call(fd, this.#address + this.#first * WORDS * 4, this.count - this.#first));
      this.errno = done >= 0 ? 0 : libc()!.errno();
      if (done >= 0) return done;
      if (this.errno !== EINTR) return 0;
    }
  }
}

export function canVector(): boolean {
  return libc() !== null;
}

/**
 * Address of the first byte, for as long as its buffer lives. The memory must not move: it is an ArrayBuffer's or SharedArrayBuffer's, which do
 * not. Throws NATIVE_UNAVAILABLE.
 */
export function addressOf(bytes: Uint8Array): number {
  return needLibc('parallel channels').address(bytes);
}
