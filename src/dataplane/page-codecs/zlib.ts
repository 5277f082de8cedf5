/**
 * zlib by FFI, from the copy that is in Node.js itself: its addon documentation names zlib among the symbols that it exports on purpose.
 * node:zlib has the same code but no way to compress a packet, synchronously, and keep the state for the next one.
 *
 * z_stream (64 bit), in u32 words:  0 next_in  2 avail_in  6 next_out  8 avail_out  12 msg  ...  112 bytes
 */
import { addressOf, needLibc } from '../../native/index.ts';
import { MULTIFD_COMPRESSED_BYTES_MAX, MULTIFD_PACKET_PAGES_BYTES } from '../../wire/multifd/index.ts';
import { CodecRefusal } from '../errors.ts';
import { type PageDecoder, type PageEncoder, putAddress, sharedBuffer } from './codec.ts';

const STREAM_BYTES = 112;
const AT = { nextIn: 0, availIn: 2, nextOut: 6, availOut: 8 } as const;
const Z_OK = 0;
const Z_BUF_ERROR = -5;
const Z_SYNC_FLUSH = 2;
/** Only its first digit is compared with that of the library. */
const VERSION = '1.2.11';

type Initialise = (stream: number, ...more: readonly (number | string)[]) => number;
type Step = (stream: number, flush: number) => number;
type End = (stream: number) => number;

function functions() {
  const library = needLibc('compressed parallel channels').load(null);
  const bind = <F>(prototype: string) => library.func(prototype) as unknown as F;
  return {
    deflateInit: bind<Initialise>('int deflateInit_(uintptr_t stream, int level, str version, int bytes)'),
    deflate: bind<Step>('int deflate(uintptr_t stream, int flush)'),
    deflateEnd: bind<End>('int deflateEnd(uintptr_t stream)'),
    inflateInit: bind<Initialise>('int inflateInit_(uintptr_t stream, str version, int bytes)'),
    inflate: bind<Step>('int inflate(uintptr_t stream, int flush)'),
    inflateEnd: bind<End>('int inflateEnd(uintptr_t stream)'),
  };
}

/** `level`: 0..9. */
export class ZlibEncoder implements PageEncoder {
  readonly input = sharedBuffer(MULTIFD_PACKET_PAGES_BYTES);
  readonly output = sharedBuffer(MULTIFD_COMPRESSED_BYTES_MAX);
  readonly outputAddress = addressOf(this.output);
  readonly #inputAddress = addressOf(this.input);
  readonly #zlib = functions();
  readonly #memory = sharedBuffer(STREAM_BYTES);
  readonly #stream = new Uint32Array(this.#memory.buffer);
  readonly #address = addressOf(this.#memory);

  constructor(level: number) {
    const result = this.#zlib.deflateInit(this.#address, level, VERSION, STREAM_BYTES);
    if (result !== Z_OK) throw new CodecRefusal(`deflateInit returns ${result}`);
  }

  encode(length: number): number {
    const stream = this.#stream;
    putAddress(stream, AT.nextIn, this.#inputAddress);
    stream[AT.availIn] = length;
    putAddress(stream, AT.nextOut, this.outputAddress);
    stream[AT.availOut] = this.output.length;
    const result = this.#zlib.deflate(this.#address, Z_SYNC_FLUSH);
    // The output holds twice the input: deflate never stops for want of room.
    if (result !== Z_OK || stream[AT.availIn] !== 0) throw new CodecRefusal(`deflate returns ${result}`);
    return this.output.length - stream[AT.availOut]!;
  }

  close(): void {
    this.#zlib.deflateEnd(this.#address);
  }
}

export class ZlibDecoder implements PageDecoder {
  readonly input = sharedBuffer(MULTIFD_COMPRESSED_BYTES_MAX);
  readonly inputAddress = addressOf(this.input);
  readonly #zlib = functions();
  readonly #memory = sharedBuffer(STREAM_BYTES);
  readonly #stream = new Uint32Array(this.#memory.buffer);
  readonly #address = addressOf(this.#memory);

  readonly #spare = sharedBuffer(1);
  readonly #spareAddress = addressOf(this.#spare);

  constructor() {
    const result = this.#zlib.inflateInit(this.#address, VERSION, STREAM_BYTES);
    if (result !== Z_OK) throw new CodecRefusal(`inflateInit returns ${result}`);
  }

  begin(length: number): void {
    putAddress(this.#stream, AT.nextIn, this.inputAddress);
    this.#stream[AT.availIn] = length;
  }

  decode(address: number, length: number): void {
    const stream = this.#stream;
    putAddress(stream, AT.nextOut, address);
    stream[AT.availOut] = length;
    const result = this.#zlib.inflate(this.#address, Z_SYNC_FLUSH);
    if (stream[AT.availOut] === 0 && (result === Z_OK || result === Z_BUF_ERROR)) return;
    if (result === Z_OK || result === Z_BUF_ERROR) throw new CodecRefusal('less content than pages');
    throw new CodecRefusal(`inflate returns ${result}`);
  }

  end(): void {
    const stream = this.#stream;
    // What inflate holds back for want of room comes out here.
    putAddress(stream, AT.nextOut, this.#spareAddress);
    stream[AT.availOut] = 1;
    this.#zlib.inflate(this.#address, Z_SYNC_FLUSH);
    if (stream[AT.availIn] !== 0 || stream[AT.availOut] === 0) throw new CodecRefusal('more content than pages');
  }

  close(): void {
    this.#zlib.inflateEnd(this.#address);
  }
}
