/** What the tests of wire share: captured streams of real QEMUs, a sink that remembers, and ways to feed a parser. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { FerryError, Reader, Writer } from '../../src/base/index.ts';
import {
  isWireError,
  type RamSink,
  ReturnPathDecoder,
  type ReturnPathMessage,
  type StreamEvent,
  StreamInput,
  StreamParser,
  type StreamParserOptions,
  type WireFault,
} from '../../src/wire/index.ts';
import { fixtures } from '../support/repository.ts';

export const PAGE = 4096;
const FOLDER = fixtures('streams');

interface Provenance {
  readonly qemu: string;
  readonly command: string;
  readonly capabilities: readonly string[];
  readonly bytes: number;
  readonly sha256: string;
}

export const PROVENANCE: Readonly<Record<string, Provenance>> = JSON.parse(
  readFileSync(join(FOLDER, 'provenance.json'), 'utf8'),
);

/** Names of captured main streams that begin with a header: `pc-7.2`. */
export const STREAMS = Object.keys(PROVENANCE)
  .map((file) => file.replace(/\.bin\.gz$/, ''))
  .filter((name) => !/(recovery|return-path)$/.test(name) || /^return-path-[\d.]+$/.test(name));

export function fixture(name: string): Buffer {
  return gunzipSync(readFileSync(join(FOLDER, `${name}.bin.gz`)));
}

/** Stream offset of the first byte: captures of `file:` hold the whole file. */
export function originOf(name: string): number {
  return name.startsWith('mapped-ram-offset') ? 5000 : 0;
}

export function written(write: (writer: Writer) => void): Buffer {
  const writer = new Writer();
  write(writer);
  return Buffer.from(writer.bytes());
}

/** Guest memory as a stream builds it up. */
export class Memory implements RamSink {
  readonly pages = new Map<string, Buffer>();

  page(block: number, offset: number, from: Buffer, at: number): void {
    this.pages.set(`${block}/${offset}`, Buffer.from(from.subarray(at, at + PAGE)));
  }

  zero(block: number, offset: number): void {
    this.pages.set(`${block}/${offset}`, Buffer.alloc(PAGE));
  }

  read(block: number, offset: number, into: Buffer): void {
    const page = this.pages.get(`${block}/${offset}`);
    if (page === undefined) into.fill(0);
    else page.copy(into);
  }
}

export const NOWHERE: RamSink = { page() {}, zero() {}, read() {} };

export interface Parsed {
  readonly events: StreamEvent[];
  readonly memory: RamSink;
  readonly error: unknown;
}

/** Chunks as a transport gives them: in a buffer with scratch room in front that is used again for the next chunk. */
export function* chunks(
  bytes: Buffer,
  cuts: Iterable<number>,
): Generator<{ bytes: Buffer; start: number; end: number }> {
  const headroom = 8192;
  let buffer = Buffer.allocUnsafe(headroom);
  let at = 0;
  for (const cut of [...cuts, bytes.length]) {
    const size = Math.min(cut, bytes.length) - at;
    if (size <= 0) continue;
    if (buffer.length < headroom + size) buffer = Buffer.allocUnsafe(headroom + size);
    // What is left of the last chunk must not matter.
    if (buffer.length < 100_000) buffer.fill(0xee);
    bytes.copy(buffer, headroom, at, at + size);
    yield { bytes: buffer, start: headroom, end: headroom + size };
    at += size;
  }
}

export interface FeedOptions extends StreamParserOptions {
  /** Stream offsets, from the first byte given, where a new chunk begins. */
  readonly cuts?: Iterable<number>;
  readonly sink?: RamSink;
  readonly origin?: number;
  readonly bytesMax?: number;
}

/** Feeds all bytes and then the end; bodies of events are copied. */
export function feed(bytes: Buffer, options: FeedOptions = {}): Parsed {
  const input = new StreamInput('test', {
    origin: options.origin ?? 0,
    ...(options.bytesMax === undefined ? {} : { bytesMax: options.bytesMax }),
  });
  const parser = new StreamParser(input.reader, options);
  const memory = options.sink ?? new Memory();
  const events: StreamEvent[] = [];
  const source = chunks(bytes, options.cuts ?? []);
  try {
    while (!parser.finished) {
      const event = parser.next();
      if (event === undefined) {
        if (parser.finished) break;
        input.release();
        const next = source.next();
        if (next.done === true) {
          assert.ok(!input.reader.final, 'a parser without bytes to come does not ask for more');
          input.finish();
        } else input.add(next.value);
        continue;
      }
      if (event.kind === 'ram-blocks') parser.setRamSink(memory);
      enter(events, event);
    }
    return { events, memory, error: undefined };
  } catch (error) {
    return { events, memory, error };
  }
}

/** With bytes of its own; pieces of device data as one event, however they came. */
function enter(events: StreamEvent[], event: StreamEvent): void {
  if (event.kind === 'device') {
    events.push({ ...event, body: Buffer.from(event.body) });
    return;
  }
  if (event.kind !== 'vfio' || !('bytes' in event.element)) {
    events.push(event);
    return;
  }
  const { element, length } = event;
  const before = events.at(-1);
  const begun = before?.kind === 'vfio' && before.element.tag === 'DEV_DATA_STATE' && before.element.left > 0;
  if (!begun || !('bytes' in before.element)) {
    events.push({ ...event, element: { ...element, bytes: Buffer.from(element.bytes) } });
    return;
  }
  const bytes = Buffer.concat([before.element.bytes, element.bytes]);
  events[events.length - 1] = { ...before, length: before.length + length, element: { ...element, bytes } };
}

/** Events that do not depend on how the bytes were cut: batches say only how far things had come. */
export function withoutBatches(events: readonly StreamEvent[]): StreamEvent[] {
  return events.filter((event) => event.kind !== 'ram-batch');
}

export function readerOf(bytes: Buffer, final = true): Reader {
  return new Reader(bytes, 'test', { final });
}

/** Runs `act`, which must throw a WireError, and returns its fault. */
export function faultOf(act: () => unknown): WireFault {
  try {
    act();
  } catch (error) {
    if (isWireError(error)) return error.fault;
    throw error;
  }
  throw new Error('no error was thrown');
}

export function faultIn(parsed: Parsed): WireFault {
  if (parsed.error instanceof FerryError) return parsed.error.fault as WireFault;
  throw parsed.error ?? new Error('no error was thrown');
}

/** Messages of a return path; bitmaps are copied. */
export function decodeReturnPath(
  bytes: Buffer,
  cuts: Iterable<number> = [],
  bitmapBytesMax?: number,
): ReturnPathMessage[] {
  const input = new StreamInput('return path');
  const decoder = new ReturnPathDecoder(input.reader, bitmapBytesMax === undefined ? {} : { bitmapBytesMax });
  const messages: ReturnPathMessage[] = [];
  const take = () => {
    for (let message = decoder.next(); message !== undefined; message = decoder.next()) {
      messages.push('bitmap' in message ? { ...message, bitmap: Buffer.from(message.bitmap) } : message);
    }
  };
  for (const chunk of chunks(bytes, cuts)) {
    input.add(chunk);
    take();
    input.release();
  }
  input.finish();
  take();
  return messages;
}
