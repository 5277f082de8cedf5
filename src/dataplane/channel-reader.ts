/** The bytes of a receiving thread's channel: headers are gathered, payload goes where it is wanted, and the next header comes along. */
import { addressOf, IoVector, type Line, NativeError, type OpenLine, openLine } from '../native/index.ts';
import { wireError } from '../wire/multifd/index.ts';
import { type Control, Counter, STOP, Word } from './control-words.ts';
import { channelLabel } from './errors.ts';
import { sharedBuffer } from './page-codecs/codec.ts';

export class ChannelReader {
  readonly channel: number;
  readonly header: Buffer;
  /** For the pieces of a payload; `receive` adds the next header. */
  readonly vector: IoVector;
  /** `origin`: offset in the channel of the packet. */
  readonly place: { readonly stream: string; origin: number };
  readonly #line: OpenLine;
  readonly #cutIsEnd: boolean;
  readonly #headerAddress: number;
  readonly #words: Int32Array;
  readonly #counters: Float64Array;
  /** Bytes behind the last packet that are here, in `header`. */
  #have = 0;

  /**
   * `headerBytes`: of the longest header; `offset`: bytes of the channel that were read before; `pieces` of a payload at most; `cutIsEnd`: the
   * peer does not end its TLS sessions.
   */
  constructor(
    start: { readonly channel: number; readonly line: Line; readonly offset: number; readonly cutIsEnd: boolean },
    headerBytes: number,
    pieces: number,
    { words, counters }: Control,
  ) {
    this.channel = start.channel;
    this.#line = openLine(start.line);
    this.#cutIsEnd = start.cutIsEnd;
    this.header = sharedBuffer(headerBytes);
    this.#headerAddress = addressOf(this.header);
    this.vector = new IoVector(1 + pieces);
    this.place = { stream: channelLabel(start.channel), origin: start.offset };
    this.#words = words;
    this.#counters = counters;
  }

  /** No more pages may come. */
  get isLate(): boolean {
    return Atomics.load(this.#words, Word.STOP) === STOP.AT_END;
  }

  /**
   * Waits until `wanted` bytes of a header are here. False at an end in front of it; late also at an end inside it: main does not wait for what is
   * missing. Throws WIRE_TRUNCATED, NativeError.
   */
  fill(wanted: number): boolean {
    const { vector, header } = this;
    while (this.#have < wanted) {
      vector.clear();
      vector.push(this.#headerAddress + this.#have, header.length - this.#have);
      const count = this.#receive();
      if (count === 0) {
        if (this.#have === 0 || this.isLate) return false;
        throw this.#truncated(this.#have, wanted);
      }
      this.#counters[Counter.BYTES]! += count;
      this.#have += count;
    }
    return true;
  }

  /**
   * The header, which is `headerBytes` long, is understood. What of the `payloadBytes` behind it has come along goes to the front of `into`;
   * returns how many bytes that were.
   */
  take(headerBytes: number, payloadBytes = 0, into?: Buffer): number {
    const { header } = this;
    const taken = Math.min(this.#have - headerBytes, payloadBytes);
    if (into !== undefined && taken > 0) header.copy(into, 0, headerBytes, headerBytes + taken);
    header.copyWithin(0, headerBytes + taken, this.#have);
    this.#have -= headerBytes + taken;
    return taken;
  }

  /**
   * Fills the pieces that were pushed since `vector.clear()`: payload whose first `done` bytes are there, behind a header of `headerBytes`. Nothing of
   * the next packet is here yet. Throws WIRE_TRUNCATED, NativeError.
   */
  receive(headerBytes: number, done: number): void {
    const { vector, header } = this;
    const payloadBytes = done + vector.byteLength;
    vector.push(this.#headerAddress, header.length);
    while (vector.byteLength > header.length) {
      const count = this.#receive();
      if (count === 0) {
        const missing = vector.byteLength - header.length;
        throw this.#truncated(headerBytes + payloadBytes - missing, headerBytes + payloadBytes);
      }
      this.#counters[Counter.BYTES]! += count;
    }
    this.#have = header.length - vector.byteLength;
  }

  /** 0: an end. Late, a cut is one too: nothing that is missing is waited for. */
  #receive(): number {
    try {
      return this.#line.receive(this.vector);
    } catch (thrown) {
      const cut = thrown instanceof NativeError && thrown.code === 'NATIVE_TLS_CUT';
      if (cut && (this.#cutIsEnd || this.isLate)) return 0;
      throw thrown;
    }
  }

  /** The packet is read. */
  finish(bytes: number): void {
    this.place.origin += bytes;
    this.#counters[Counter.PACKETS]! += 1;
  }

  #truncated(available: number, wanted: number) {
    const { stream, origin } = this.place;
    const offset = origin + available;
    return wireError({ code: 'WIRE_TRUNCATED', stream, offset, path: 'packet', wanted, available });
  }
}
