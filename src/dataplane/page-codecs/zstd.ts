/**
 * zstd by FFI, from the library inside the package @cloudpss/zstd (docs/dependencies.md says why that one): its own interface has no flush, but
 * its binary exports libzstd whole.
 *
 * ZSTD_outBuffer and ZSTD_inBuffer, in u32 words:  0 address  2 size  4 position
 */
import { createRequire } from 'node:module';
import { dirname } from 'node:path';
import { addressOf, needLibc } from '../../native/index.ts';
import { MULTIFD_COMPRESSED_BYTES_MAX, MULTIFD_PACKET_PAGES_BYTES } from '../../wire/multifd/index.ts';
import { CodecRefusal, dataplaneError } from '../errors.ts';
import { type PageDecoder, type PageEncoder, putAddress, sharedBuffer } from './codec.ts';

const BUFFER_BYTES = 24;
const OUT = { address: 0, size: 2, position: 4 } as const;
const IN = { address: 6, size: 8, position: 10 } as const;
const PARAMETER_LEVEL = 100;
const DIRECTIVE_FLUSH = 1;

function open() {
  const libc = needLibc('compressed parallel channels');
  let path: string;
  try {
    const manifest = createRequire(import.meta.url).resolve('@cloudpss/zstd/package.json');
    path = (createRequire(manifest)('node-gyp-build') as { path(folder: string): string }).path(dirname(manifest));
  } catch (thrown) {
    const message = 'multifd-compression zstd needs the package @cloudpss/zstd, which cannot be used here';
    throw dataplaneError({ code: 'DATAPLANE_UNAVAILABLE', method: 'zstd' }, message, thrown);
  }
  const library = libc.load(path);
  const bind = <F>(prototype: string) => library.func(prototype) as unknown as F;
  return {
    createCCtx: bind<() => number>('uintptr_t ZSTD_createCCtx()'),
    freeCCtx: bind<(context: number) => number>('size_t ZSTD_freeCCtx(uintptr_t context)'),
    setParameter: bind<(context: number, parameter: number, value: number) => number>(
      'size_t ZSTD_CCtx_setParameter(uintptr_t context, int parameter, int value)',
    ),
    compress: bind<(context: number, output: number, input: number, directive: number) => number>(
      'size_t ZSTD_compressStream2(uintptr_t context, uintptr_t output, uintptr_t input, int directive)',
    ),
    createDCtx: bind<() => number>('uintptr_t ZSTD_createDCtx()'),
    freeDCtx: bind<(context: number) => number>('size_t ZSTD_freeDCtx(uintptr_t context)'),
    decompress: bind<(context: number, output: number, input: number) => number>(
      'size_t ZSTD_decompressStream(uintptr_t context, uintptr_t output, uintptr_t input)',
    ),
    isError: bind<(result: number | bigint) => number>('unsigned int ZSTD_isError(size_t result)'),
    errorName: bind<(result: number | bigint) => string>('str ZSTD_getErrorName(size_t result)'),
  };
}

/** The library and the two structures that it works on. */
class Buffers {
  readonly zstd = open();
  readonly #memory = sharedBuffer(2 * BUFFER_BYTES);
  readonly words = new Uint32Array(this.#memory.buffer);
  readonly out = addressOf(this.#memory);
  readonly in = this.out + BUFFER_BYTES;

  check(result: number | bigint): void {
    if (this.zstd.isError(result) !== 0) throw new CodecRefusal(this.zstd.errorName(result));
  }
}

/** `level`: 1..20. */
export class ZstdEncoder implements PageEncoder {
  readonly input = sharedBuffer(MULTIFD_PACKET_PAGES_BYTES);
  readonly output = sharedBuffer(MULTIFD_COMPRESSED_BYTES_MAX);
  readonly outputAddress = addressOf(this.output);
  readonly #inputAddress = addressOf(this.input);
  readonly #buffers = new Buffers();
  readonly #context: number;

  constructor(level: number) {
    const { zstd } = this.#buffers;
    this.#context = zstd.createCCtx();
    if (this.#context === 0) throw new CodecRefusal('no memory');
    this.#buffers.check(zstd.setParameter(this.#context, PARAMETER_LEVEL, level));
  }

  encode(length: number): number {
    const { zstd, words, out, in: input } = this.#buffers;
    putAddress(words, OUT.address, this.outputAddress);
    words[OUT.size] = this.output.length;
    words[OUT.position] = 0;
    putAddress(words, IN.address, this.#inputAddress);
    words[IN.size] = length;
    words[IN.position] = 0;
    const left = zstd.compress(this.#context, out, input, DIRECTIVE_FLUSH);
    if (left !== 0) {
      this.#buffers.check(left);
      // The output holds twice the input.
      throw new CodecRefusal('more compressed bytes than a packet takes');
    }
    return words[OUT.position]!;
  }

  close(): void {
    this.#buffers.zstd.freeCCtx(this.#context);
  }
}

export class ZstdDecoder implements PageDecoder {
  readonly input = sharedBuffer(MULTIFD_COMPRESSED_BYTES_MAX);
  readonly inputAddress = addressOf(this.input);
  readonly #buffers = new Buffers();
  readonly #context: number;
  readonly #spare = sharedBuffer(1);
  readonly #spareAddress = addressOf(this.#spare);

  constructor() {
    this.#context = this.#buffers.zstd.createDCtx();
    if (this.#context === 0) throw new CodecRefusal('no memory');
  }

  begin(length: number): void {
    const { words } = this.#buffers;
    putAddress(words, IN.address, this.inputAddress);
    words[IN.size] = length;
    words[IN.position] = 0;
  }

  decode(address: number, length: number): void {
    const { zstd, words, out, in: input } = this.#buffers;
    putAddress(words, OUT.address, address);
    words[OUT.size] = length;
    words[OUT.position] = 0;
    while (words[OUT.position]! < length) {
      const before = words[OUT.position]! + words[IN.position]!;
      this.#buffers.check(zstd.decompress(this.#context, out, input));
      if (words[OUT.position]! + words[IN.position]! === before) throw new CodecRefusal('less content than pages');
    }
  }

  end(): void {
    const { zstd, words, out, in: input } = this.#buffers;
    // What zstd holds back for want of room comes out here.
    putAddress(words, OUT.address, this.#spareAddress);
    words[OUT.size] = 1;
    words[OUT.position] = 0;
    this.#buffers.check(zstd.decompress(this.#context, out, input));
    if (words[OUT.position] !== 0 || words[IN.position] !== words[IN.size]) {
      throw new CodecRefusal('more content than pages');
    }
  }

  close(): void {
    this.#buffers.zstd.freeDCtx(this.#context);
  }
}
