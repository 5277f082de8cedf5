/** A loading session: takes the stream cut in any way and puts it into the state. Nothing in it is trusted. */
import { bitmapWords, countBits, setRange } from '../../base/index.ts';
import { VF_PAGE_BYTES } from './options.ts';
import {
  HEADER_BYTES,
  RECORD,
  RECORD_BYTES,
  REGISTERS_BYTES,
  recordCheck,
  STREAM_MAGIC,
  STREAM_VERSION,
} from './stream-format.ts';
import type { VfState } from './vf-state.ts';

/** The stream is not one that this device could have written. */
export class BadStream extends Error {}

type Part = 'header' | 'record' | 'pages' | 'registers' | 'ended';

export class Loader {
  readonly #state: VfState;
  readonly #dmaBytes: number;
  readonly #received: Uint32Array;
  /** What is gathered of a header, a record or the registers. */
  readonly #small = Buffer.alloc(REGISTERS_BYTES);
  #gathered = 0;
  #part: Part = 'header';
  /** Where the bytes of the pages go. */
  #at = 0;
  #end = 0;
  #records = 0;
  #bad: BadStream | undefined;
  registers: Buffer | undefined;
  /** Bytes taken so far. */
  offset = 0;

  constructor(state: VfState, dmaBytes: number) {
    this.#state = state;
    this.#dmaBytes = dmaBytes;
    this.#received = new Uint32Array(bitmapWords(state.pageCount));
  }

  /** The header is here: the device knows what it needs and can allocate it. */
  get begun(): boolean {
    return this.#part !== 'header';
  }

  /** Throws BadStream, also later: the session is spoiled. */
  write(bytes: Buffer): void {
    if (this.#bad !== undefined) throw this.#bad;
    try {
      for (let at = 0; at < bytes.length; ) {
        const count = this.#take(bytes, at);
        at += count;
        this.offset += count;
      }
    } catch (thrown) {
      if (thrown instanceof BadStream) this.#bad = thrown;
      throw thrown;
    }
  }

  /** The session ends: throws BadStream unless everything is here. */
  finish(): void {
    if (this.#bad !== undefined) throw this.#bad;
    const missing = this.#state.pageCount - countBits(this.#received);
    if (this.#part !== 'ended')
      throw new BadStream(`the stream is not whole: it breaks off at byte ${this.offset} in its ${this.#part}`);
    if (missing > 0 || this.registers === undefined) {
      throw new BadStream(
        `the stream is whole but has no ${missing > 0 ? `content of ${missing} pages` : 'registers'}`,
      );
    }
  }

  /** Returns how many bytes it took, at least one. */
  #take(bytes: Buffer, at: number): number {
    switch (this.#part) {
      case 'header':
        return this.#gather(bytes, at, HEADER_BYTES, () => this.#header());
      case 'record':
        return this.#gather(bytes, at, RECORD_BYTES, () => this.#record());
      case 'registers':
        return this.#gather(bytes, at, REGISTERS_BYTES, () => {
          this.registers = Buffer.from(this.#small);
          this.#part = 'record';
        });
      case 'pages': {
        const count = bytes.copy(this.#state.bytes, this.#at, at, Math.min(bytes.length, at + this.#end - this.#at));
        this.#at += count;
        if (this.#at === this.#end) this.#part = 'record';
        return count;
      }
      case 'ended':
        throw new BadStream(`bytes after the end of the stream, from byte ${this.offset} on`);
    }
  }

  #gather(bytes: Buffer, at: number, size: number, whole: () => void): number {
    const count = bytes.copy(this.#small, this.#gathered, at, at + size - this.#gathered);
    this.#gathered += count;
    if (this.#gathered === size) {
      this.#gathered = 0;
      whole();
    }
    return count;
  }

  #header(): void {
    const small = this.#small;
    if (small.readUInt32LE(0) !== STREAM_MAGIC || small.readUInt32LE(4) !== STREAM_VERSION) {
      throw new BadStream('it does not begin as the stream of an emulated VF');
    }
    const stateBytes = small.readDoubleLE(16);
    const dmaBytes = small.readDoubleLE(32);
    if (stateBytes !== this.#state.bytes.length || dmaBytes !== this.#dmaBytes) {
      const theirs = `${stateBytes} bytes of state and ${dmaBytes} of DMA`;
      throw new BadStream(`the source has ${theirs}, this device ${this.#state.bytes.length} and ${this.#dmaBytes}`);
    }
    this.#state.seed = small.readUInt32LE(8);
    this.#part = 'record';
  }

  #record(): void {
    const type = this.#small.readUInt32LE(0);
    const first = this.#small.readUInt32LE(4);
    const count = this.#small.readUInt32LE(8);
    if (this.#small.readUInt32LE(12) !== recordCheck(type, first, count, this.#records++)) {
      throw new BadStream(`no record where one should be, before byte ${this.offset + RECORD_BYTES}`);
    }
    if (type === RECORD.END) this.#part = 'ended';
    else if (type === RECORD.REGISTERS && this.registers === undefined) this.#part = 'registers';
    else if (type === RECORD.PAGES) this.#pages(first, count);
    else throw new BadStream(`a record of type ${type} that cannot be there`);
  }

  #pages(first: number, count: number): void {
    if (count === 0 || first + count > this.#state.pageCount) {
      throw new BadStream(`pages ${first} to ${first + count}, of ${this.#state.pageCount}`);
    }
    setRange(this.#received, first, count);
    this.#at = first * VF_PAGE_BYTES;
    this.#end = this.#at + count * VF_PAGE_BYTES;
    this.#part = 'pages';
  }
}
