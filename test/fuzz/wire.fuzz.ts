/**
 * Hostile bytes for every decoder of wire. Whatever comes, the outcome is a parse or a WireError, in time and memory bounded by the
 * bytes that came; anything else is thrown, with the seed and round that bring it back.
 *
 *   node .build/.../test/fuzz/wire.fuzz.js [seed] [iterations]
 */
import { STARVED, Writer } from '../../src/base/index.ts';
import {
  decodeHandshake,
  encodeHandshake,
  isWireError,
  type RamSink,
  StreamInput,
  StreamParser,
} from '../../src/wire/index.ts';
import { mappedRamSample, postcopySample, precopySample } from '../wire/samples.ts';
import { chunks, decodeReturnPath, fixture, PAGE } from '../wire/streams.ts';
import { damage, generator } from './damage.ts';

/** A decoder may keep twice what came (buffers double) and this, bytes. */
const KEPT_SLACK = 64 * 1024;

/** Checks what the decoder hands on: pages inside the blocks it announced, bytes inside the buffer. */
class WatchedSink implements RamSink {
  lengths: number[] = [];

  page(block: number, offset: number, from: Buffer, at: number): void {
    this.#inside(block, offset);
    if (at < 0 || at + PAGE > from.length) throw new Error(`page at ${at} of a buffer of ${from.length}`);
  }

  zero(block: number, offset: number): void {
    this.#inside(block, offset);
  }

  read(block: number, offset: number, into: Buffer): void {
    this.#inside(block, offset);
    into.fill(0);
  }

  #inside(block: number, offset: number): void {
    if (!(offset >= 0 && offset + PAGE <= this.lengths[block]!) || offset % PAGE !== 0) {
      throw new Error(`page ${offset} of block ${block}, which has ${this.lengths[block]} bytes`);
    }
  }
}

function parseStream(bytes: Buffer, cuts: Iterable<number>): string {
  const input = new StreamInput('fuzz');
  const parser = new StreamParser(input.reader, { pageSize: PAGE });
  const sink = new WatchedSink();
  const outcome: string[] = [];
  const bound = 8 * bytes.length + 10_000;
  let steps = 0;
  const source = chunks(bytes, cuts);
  while (!parser.finished) {
    if (++steps > bound) throw new Error(`no end after ${steps} steps`);
    const kept = input.reader.bytes.length;
    if (kept > 2 * bytes.length + KEPT_SLACK) throw new Error(`${kept} bytes kept of ${bytes.length}`);
    const event = parser.next();
    if (event === undefined) {
      if (parser.finished) break;
      if (input.reader.final) throw new Error('starved at the end');
      input.release();
      const next = source.next();
      if (next.done === true) input.finish();
      else input.add(next.value);
      continue;
    }
    if (event.kind === 'ram-blocks') {
      sink.lengths = event.blocks.map((block) => block.usedLength);
      parser.setRamSink(sink);
    }
    // These two come as the bytes come.
    const inPieces = event.kind === 'ram-batch' || (event.kind === 'vfio' && event.element.tag === 'DEV_DATA_STATE');
    if (!inPieces) outcome.push(`${event.kind} ${event.offset}+${event.length}`);
  }
  return outcome.join('\n');
}

function parseReturnPath(bytes: Buffer, cuts: Iterable<number>): string {
  return decodeReturnPath(bytes, cuts)
    .map(({ type }) => type)
    .join('\n');
}

/** Of the first frame; what is behind it is nobody's. */
function parseHandshake(bytes: Buffer, cuts: Iterable<number>): string {
  const input = new StreamInput('fuzz');
  const { reader } = input;
  for (const chunk of chunks(bytes, cuts)) {
    input.add(chunk);
    const mark = reader.pos;
    try {
      return `hello of ${decodeHandshake(reader, 'hello').body.length}`;
    } catch (thrown) {
      if (thrown !== STARVED) throw thrown;
      reader.pos = mark;
    }
    input.release();
  }
  return 'no end';
}

function handshakeSample(): Buffer {
  const writer = new Writer(64);
  encodeHandshake(writer, { kind: 'hello', body: Buffer.from(JSON.stringify({ handshake: 2, runState: 'running' })) });
  return Buffer.from(writer.bytes());
}

/** The parse, or the fault that ended it; all other errors go up. */
function outcomeOf(parse: () => string): string {
  try {
    return parse();
  } catch (error) {
    if (isWireError(error)) return `${error.code} at ${error.fault.offset}: ${error.fault.path}`;
    throw error;
  }
}

const SUBJECTS: readonly { readonly bytes: Buffer; parse(bytes: Buffer, cuts: Iterable<number>): string }[] = [
  { bytes: precopySample(), parse: parseStream },
  { bytes: postcopySample(), parse: parseStream },
  { bytes: mappedRamSample().subarray(0, 3000), parse: parseStream },
  { bytes: fixture('isapc-11.1'), parse: parseStream },
  { bytes: fixture('postcopy-11.1'), parse: parseStream },
  { bytes: fixture('xbzrle-10.0').subarray(0, 400_000), parse: parseStream },
  { bytes: fixture('postcopy-10.0.recovery.return-path'), parse: parseReturnPath },
  { bytes: handshakeSample(), parse: parseHandshake },
];

/** Each round: one stream damaged, parsed whole and in pieces; both must end the same way. */
export function fuzzWire(seed: number, iterations: number): void {
  const random = generator(seed);
  for (let round = 0; round < iterations; round++) {
    const subject = SUBJECTS[random(SUBJECTS.length)]!;
    const bytes = damage(subject.bytes, random);
    const step = 1 + random(random(2) === 0 ? 60 : 20_000);
    const cuts = Array.from({ length: Math.min(2000, Math.ceil(bytes.length / step)) }, (_, i) => i * step);
    try {
      const whole = outcomeOf(() => subject.parse(bytes, []));
      const pieces = outcomeOf(() => subject.parse(bytes, cuts));
      if (whole !== pieces) throw new Error(`whole:\n${whole}\nin pieces of ${step}:\n${pieces}`);
    } catch (error) {
      throw new Error(`seed ${seed}, round ${round} of subject ${SUBJECTS.indexOf(subject)}`, { cause: error });
    }
  }
}

if (process.argv[1]?.endsWith('wire.fuzz.js')) {
  const seed = Number(process.argv[2] ?? Date.now() & 0x7fffffff);
  const iterations = Number(process.argv[3] ?? 20_000);
  console.log(`seed ${seed}, ${iterations} rounds`);
  const startMs = performance.now();
  fuzzWire(seed, iterations);
  console.log(`no finding in ${((performance.now() - startMs) / 1000).toFixed(1)} s`);
}
