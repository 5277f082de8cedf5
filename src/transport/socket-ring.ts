import type { ConnectOpts, SocketConstructorOpts } from 'node:net';
import { ReadRing } from './read-ring.ts';

const READ_SLOT_BYTES = 256 * 1024;
const READ_SLOTS = 4;
/** While the reader takes most bytes directly, a wake-up shall bring only few by way of the ring. */
const WAKE_BYTES = 16 * 1024;

/** Who wants to see the first bytes before the rest is read. */
export interface FirstBytes {
  /** Whether these are all it wants. */
  enough(bytes: Buffer): boolean;
  seen(bytes: Buffer): void;
}

/**
 * A read ring with the options that make a net.Socket fill it. The first read takes no more than `firstBytes`, if given: who looks at them
 * (`first`) leaves all that follows in the kernel, for itself or for whoever gets the descriptor. They are in the ring too.
 */
export class SocketRing extends ReadRing {
  bytesRead = 0;
  reads = 0;
  /** Reads that shall be small. */
  wakeUps = 0;
  /** To be set before the socket begins to read; it stops when the first bytes are here. */
  first: FirstBytes | undefined;
  /** Called after each read. */
  onRead: (() => void) | undefined;
  readonly socketOptions: SocketConstructorOpts & ConnectOpts;
  /** Until the first bytes are in the ring. */
  #first: Buffer | undefined;
  #firstCount = 0;

  constructor(firstBytes = 0) {
    super(READ_SLOT_BYTES, READ_SLOTS);
    if (firstBytes > 0) this.#first = Buffer.alloc(firstBytes);
    this.socketOptions = {
      allowHalfOpen: true,
      onread: {
        buffer: () => this.#first?.subarray(this.#firstCount) ?? this.#next(),
        callback: (count) => (this.#first === undefined ? this.#add(count) : this.#addFirst(this.#first, count)),
      },
    };
  }

  /** Those that have come while not all of them are here. */
  get firstBytes(): Buffer {
    return this.#first?.subarray(0, this.#firstCount) ?? Buffer.alloc(0);
  }

  #next(): Buffer {
    return this.wakeUps > 0 ? this.space.subarray(0, WAKE_BYTES) : this.space;
  }

  #add(count: number): boolean {
    this.wakeUps--;
    this.bytesRead += count;
    this.reads++;
    this.onRead?.();
    return this.commit(count);
  }

  #addFirst(first: Buffer, count: number): boolean {
    this.#firstCount += count;
    const bytes = first.subarray(0, this.#firstCount);
    if (this.first !== undefined && bytes.length < first.length && !this.first.enough(bytes)) return true;
    this.#first = undefined;
    bytes.copy(this.space);
    const goOn = this.#add(bytes.length);
    if (this.first === undefined) return goOn;
    this.first.seen(bytes);
    return false;
  }
}
