/**
 * Memory that devices save their state to and channels send it from: buffers of MULTIFD_DEVICE_BYTES_MAX. Main gives out free ones; a buffer that was
 * handed over is free again when the kernel has taken all of it.
 *
 *     words[WANTED]         1: main wants to hear when a buffer becomes free
 *     words[BUFFERS + b]    0 free, 1 given out or handed over
 */
import { MULTIFD_DEVICE_BYTES_MAX } from '../../wire/multifd/index.ts';

const AT = { WANTED: 0, BUFFERS: 1 } as const;

/** What crosses to the sending threads. */
export interface SharedStateArena {
  readonly buffers: number;
  readonly words: SharedArrayBuffer;
  readonly memory: SharedArrayBuffer;
}

export class StateArena {
  readonly shared: SharedStateArena;
  readonly #words: Int32Array;
  /** Where the search for a free one begins. */
  #at = 0;

  static make(buffers: number): StateArena {
    return new StateArena({
      buffers,
      words: new SharedArrayBuffer((AT.BUFFERS + buffers) * 4),
      memory: new SharedArrayBuffer(buffers * MULTIFD_DEVICE_BYTES_MAX),
    });
  }

  constructor(shared: SharedStateArena) {
    this.shared = shared;
    this.#words = new Int32Array(shared.words);
  }

  /** Main: a free buffer, which is not free any more; -1: none. */
  take(): number {
    const { buffers } = this.shared;
    for (let i = 0; i < buffers; i++) {
      const buffer = (this.#at + i) % buffers;
      if (Atomics.load(this.#words, AT.BUFFERS + buffer) !== 0) continue;
      Atomics.store(this.#words, AT.BUFFERS + buffer, 1);
      this.#at = (buffer + 1) % buffers;
      return buffer;
    }
    return -1;
  }

  /** Main: wants to hear of a free buffer; true if there is one already. */
  want(): boolean {
    Atomics.store(this.#words, AT.WANTED, 1);
    for (let buffer = 0; buffer < this.shared.buffers; buffer++) {
      if (Atomics.load(this.#words, AT.BUFFERS + buffer) === 0) return true;
    }
    return false;
  }

  /** The buffer is free. True if main wants to hear of it. */
  free(buffer: number): boolean {
    Atomics.store(this.#words, AT.BUFFERS + buffer, 0);
    return Atomics.exchange(this.#words, AT.WANTED, 0) !== 0;
  }

  bytes(buffer: number): Buffer {
    return Buffer.from(this.shared.memory, buffer * MULTIFD_DEVICE_BYTES_MAX, MULTIFD_DEVICE_BYTES_MAX);
  }
}
