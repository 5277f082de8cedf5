/** Checkpoints with the RAM of dataplane/support.ts, and rounds of stores to it. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import fc from 'fast-check';
import { CheckpointWriter, type IncomingRam, type MemoryRam } from '../../src/machine/index.ts';
import { CONFIGURATION, descriptionOf, GLOBAL_STATE } from '../machine/checkpoint/sample.ts';
import { ramOf, writePage } from './support.ts';

const folder = mkdtempSync(join(tmpdir(), 'vmferry-file-ram-'));
after(() => rmSync(folder, { recursive: true }));
let names = 0;
export const freshPath = () => join(folder, `checkpoint-${names++}`);

/** Pages of each block. */
export const PAGES = [300, 7, 64];
const BLOCKS = ramOf(...PAGES).blocks.map(({ idstr, usedLength }) => ({ idstr, usedLength }));

export async function filling(
  path: string,
  directIo = false,
): Promise<{ writer: CheckpointWriter; sink: IncomingRam }> {
  const writer = new CheckpointWriter(path, { directIo });
  await writer.configure(CONFIGURATION);
  return { writer, sink: await writer.prepareRam(BLOCKS, { ignoreShared: false }) };
}

export async function finish(writer: CheckpointWriter): Promise<void> {
  await writer.loadDevice(GLOBAL_STATE.section, GLOBAL_STATE.body);
  await writer.describe(descriptionOf([GLOBAL_STATE]));
  await writer.commit();
}

export const allPages = (block: number) => Array.from({ length: PAGES[block]! }, (_, page) => page);

export interface Store {
  readonly block: number;
  readonly page: number;
  readonly version: number;
  readonly run: number;
}

export const rounds: fc.Arbitrary<Store[][]> = fc.array(
  fc.array(fc.record({ block: fc.nat(2), page: fc.nat(), version: fc.nat(3), run: fc.integer({ min: 1, max: 60 }) }), {
    minLength: 1,
    maxLength: 12,
  }),
  { minLength: 1, maxLength: 4 },
);

/** Does the stores of a round; returns what it must send: everything if it is the first, else what was stored to. */
export function storeRound(ram: MemoryRam, stores: readonly Store[], isFirst: boolean): readonly Iterable<number>[] {
  const dirty = PAGES.map(() => new Set<number>());
  for (const { block, page, version, run } of stores) {
    for (let at = page % PAGES[block]!, left = run; left > 0 && at < PAGES[block]!; at++, left--) {
      writePage(ram, block, at, version);
      dirty[block]!.add(at);
    }
  }
  return isFirst ? PAGES.map((_, block) => allPages(block)) : dirty;
}
