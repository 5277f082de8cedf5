/** Multifd migrations between two real QEMUs, as scripts/capture-multifd.mjs recorded them, and the points on their main streams. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { Reader } from '../../src/base/index.ts';
import {
  MULTIFD_INITIAL_BYTES,
  type MultifdCompression,
  type RamSink,
  type StreamEvent,
  StreamParser,
  type StreamRamBlock,
} from '../../src/wire/index.ts';

const FOLDER = join(repository(), 'test', 'fixtures', 'multifd');

function repository(): string {
  let at = import.meta.dirname;
  while (!existsSync(join(at, 'package.json'))) at = dirname(at);
  return at;
}

interface Provenance {
  readonly qemu: string;
  /** sha256 of block mem0 at the destination, in hex. */
  readonly memory: string;
  readonly bytes: Readonly<Record<string, number>>;
}

const PROVENANCE: Readonly<Record<string, Provenance>> = JSON.parse(
  readFileSync(join(FOLDER, 'provenance.json'), 'utf8'),
);

export interface MultifdCapture extends Provenance {
  /** `zlib-7.2` */
  readonly name: string;
  readonly method: MultifdCompression;
  readonly main: Buffer;
  /** By channel id, initial packet included. */
  readonly channels: readonly Buffer[];
}

export const CAPTURED_BLOCK = 'mem0';

export function multifdCaptures(): MultifdCapture[] {
  return Object.entries(PROVENANCE).map(([name, provenance]) => {
    const file = (channel: string) => gunzipSync(readFileSync(join(FOLDER, `${name}.${channel}.bin.gz`)));
    const ids = Object.keys(provenance.bytes).filter((channel) => channel !== 'main');
    return {
      ...provenance,
      name,
      method: name.split('-')[0] as MultifdCompression,
      main: file('main'),
      channels: ids.sort().map(file),
    };
  });
}

/**
 * Goes through a captured main stream. `blocks` is called with the block list and gives the sink of its page records; `meet` at each point
 * where all channels meet: every FLUSH if START had one, else every end of a ram section (qemu-wire 5.6).
 */
export async function replayMain(
  main: Buffer,
  blocks: (list: readonly StreamRamBlock[]) => RamSink,
  meet: () => void | Promise<void>,
): Promise<{ readonly points: number; readonly perRound: boolean }> {
  const parser = new StreamParser(new Reader(main, 'main', { final: true }));
  let perRound = false;
  let started = false;
  let points = 0;
  const point = async () => {
    points++;
    await meet();
  };
  for (let event: StreamEvent | undefined = parser.next(); event !== undefined; event = parser.next()) {
    if (event.kind === 'ram-blocks') parser.setRamSink(blocks(event.blocks));
    if (event.kind === 'multifd-flush') {
      if (!started) perRound = true;
      await point();
    }
    if (event.kind === 'section-end' && event.section.idstr === 'ram') {
      started = true;
      if (!perRound) await point();
    }
    if (event.kind === 'description') break;
  }
  return { points, perRound };
}

/** What follows the initial packet. */
export function packetsOf(channel: Buffer): Buffer {
  return channel.subarray(MULTIFD_INITIAL_BYTES);
}
