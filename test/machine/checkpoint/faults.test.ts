/** What goes wrong around a checkpoint: killed writers, full disks, damaged and hostile files. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { FerryError, Writer } from '../../../src/base/index.ts';
import { CheckpointReader } from '../../../src/machine/index.ts';
import {
  encodeConfiguration,
  encodeHeader,
  encodeRamEos,
  encodeRamTotal,
  encodeSectionBegin,
  encodeSectionFooter,
} from '../../../src/wire/index.ts';
import { fixtures } from '../../support/repository.ts';
import { BLOCKS, CONFIGURATION, fillCheckpoint, PAGE, stripe, stripes, writeCheckpoint } from './sample.ts';

const folder = mkdtempSync(join(tmpdir(), 'vmferry-faults-'));
after(() => rmSync(folder, { recursive: true }));
const FIXTURES = `${fixtures('streams')}/`;

test('a writer killed at any moment leaves no file, or a whole one', { timeout: 60_000 }, async () => {
  const program = `
    import { writeCheckpoint } from ${JSON.stringify(new URL('./sample.js', import.meta.url).href)};
    process.send('ready');
    for (let i = 0; ; i++) await writeCheckpoint(process.argv[1] + '/victim' + i);`;
  let whole = 0;
  for (let round = 0; round < 10; round++) {
    const place = join(folder, `killed-${round}`);
    mkdirSync(place);
    const child = spawn(process.execPath, ['--input-type=module', '-e', program, place], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    await once(child, 'message');
    await new Promise((resolve) => setTimeout(resolve, round * 17));
    child.kill('SIGKILL');
    await once(child, 'exit');
    for (const name of readdirSync(place).filter((found) => !found.startsWith('.'))) {
      const reader = await CheckpointReader.open(join(place, name));
      const window = await reader.window(0, 699);
      const at = (699 - window.firstPage) * PAGE;
      assert.ok(window.bytes.subarray(at, at + PAGE).equals(stripe(Buffer.alloc(PAGE), 0, 699)));
      await reader.close();
      whole++;
    }
  }
  assert.ok(whole > 0, 'some were finished before the kill');
});

test('a disk that fills up is a typed error, and nothing stays behind', { timeout: 30_000 }, async (t) => {
  const place = join(folder, 'small');
  mkdirSync(place);
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=24m', 'none', place], { stdio: 'ignore' });
  } catch {
    t.skip('mounting a small file system wants root');
    return;
  }
  try {
    const path = join(place, 'checkpoint');
    const blocks = [{ idstr: 'pc.ram', usedLength: 16 * 1024 * 1024 }];
    const filling = fillCheckpoint(path, {
      blocks,
      pages: async (sink, writer) => {
        // There was room when RAM was announced; somebody else takes it.
        writeFileSync(join(place, 'other'), Buffer.alloc(16 * 1024 * 1024));
        await stripes(blocks)(sink, writer);
        for (;;) await (writer.drain() ?? new Promise((resolve) => setImmediate(resolve)));
      },
    });
    await assert.rejects(
      filling,
      (error: Error) =>
        error instanceof FerryError &&
        error.code === 'CHECKPOINT_IO' &&
        'errno' in error.fault &&
        error.fault.errno === 'ENOSPC' &&
        error.message.includes('no space left'),
    );
    assert.deepEqual(readdirSync(place), ['other']);
  } finally {
    execFileSync('umount', [place]);
  }
});

test('a plain stream is no checkpoint, and is told apart from a broken one', async () => {
  const plain = join(folder, 'plain');
  writeFileSync(plain, gunzipSync(readFileSync(join(FIXTURES, 'pc-11.1.bin.gz'))));
  await refused(plain, /^CHECKPOINT_NOT_MAPPED$/);
  const noise = join(folder, 'noise');
  writeFileSync(noise, 'no migration stream at all');
  await refused(noise, /^WIRE_UNEXPECTED_VALUE$/);
  writeFileSync(noise, '');
  await refused(noise, /^WIRE_TRUNCATED$/);
});

for (const fixture of ['mapped-ram-10.0', 'mapped-ram-11.1']) {
  test(`what QEMU wrote is read: ${fixture}`, async () => {
    const path = join(folder, fixture);
    writeFileSync(path, gunzipSync(readFileSync(join(FIXTURES, `${fixture}.bin.gz`))));
    const reader = await CheckpointReader.open(path);
    try {
      assert.ok(reader.ram.some(({ idstr }) => idstr === 'pc.ram'));
      const { sections, description } = await reader.saveDevices();
      assert.ok(sections.length > 20 && description !== undefined);
      for (const { index, usedLength } of reader.ram) {
        for (let page = 0; page < usedLength / PAGE; ) {
          const window = await reader.window(index, page);
          page = window.firstPage + window.pageCount;
        }
      }
    } finally {
      await reader.close();
    }
  });
}

test('a truncated checkpoint is refused wherever it ends', async () => {
  const path = join(folder, 'whole');
  await writeCheckpoint(path);
  const bytes = readFileSync(path);
  const short = join(folder, 'short');
  writeFileSync(short, bytes);
  const file = await open(short, 'r+');
  const lengths = new Set([
    0,
    7,
    8,
    20,
    60,
    bytes.length / 2,
    ...Array.from({ length: 40 }, (_, i) => bytes.length - 1 - i * 37),
  ]);
  for (const length of [...lengths].sort((a, b) => b - a)) {
    await file.truncate(Math.floor(length));
    await refused(short, /^(WIRE_TRUNCATED|WIRE_UNEXPECTED_VALUE)$/);
  }
  await file.close();
});

test('flipped bits outside the pages are refused or harmless, never more than an error', async () => {
  const path = join(folder, 'flipped');
  await writeCheckpoint(path);
  const bytes = readFileSync(path);
  const tail = bytes.lastIndexOf(Buffer.from('globalstate', 'latin1'), bytes.indexOf('"page_size"')) - 60;
  const places = [...Array(260).keys(), ...Array.from({ length: 500 }, (_, i) => tail + i)];
  const file = await open(path, 'r+');
  let refusals = 0;
  for (const place of places) {
    await file.write(Buffer.from([bytes[place]! ^ (1 << (place & 7))]), 0, 1, place);
    try {
      await (await CheckpointReader.open(path)).close();
    } catch (error) {
      assert.ok(error instanceof FerryError, String(error));
      refusals++;
    }
    await file.write(bytes, place, 1, place);
  }
  await file.close();
  assert.ok(refusals > 300, `${refusals} refusals of ${places.length}`);
});

interface Entry {
  readonly idstr: string;
  readonly usedLength: number;
  readonly version?: number;
  readonly pageSize?: number;
  readonly bitmapOffset: number;
  readonly pagesOffset: number;
}

/** A file with these block entries right behind one another's regions, as far as they say where those are. */
function hostile(entries: readonly Entry[], total: number): Buffer {
  const writer = new Writer();
  encodeHeader(writer);
  encodeConfiguration(writer, { ...CONFIGURATION, capabilities: ['mapped-ram'] });
  encodeSectionBegin(writer, { kind: 'start', id: 1, idstr: 'ram', instance: 0, version: 4 });
  encodeRamTotal(writer, total);
  for (const { idstr, usedLength, version = 1, pageSize = PAGE, bitmapOffset, pagesOffset } of entries) {
    writer.cstr(idstr).u64(usedLength).u32(version).u64(pageSize).u64(bitmapOffset).u64(pagesOffset);
    const end = pagesOffset + usedLength;
    if (end > writer.length && end < 1e8) writer.zeros(end - writer.length);
  }
  encodeRamEos(writer);
  encodeSectionFooter(writer, 1);
  return writer.bytes();
}

const GOOD: Entry = { idstr: 'pc.ram', usedLength: 16 * PAGE, bitmapOffset: 8192, pagesOffset: 2 * 8192 };
const HOSTILE: readonly [string, Entry, number?][] = [
  ['length beyond the file', { ...GOOD, usedLength: 2 ** 52 }],
  ['length that is no multiple of the page', { ...GOOD, usedLength: 16 * PAGE + 1 }],
  ['no length', { ...GOOD, usedLength: 0 }, 0x1000],
  ['length above the total', GOOD, 8 * PAGE],
  ['bitmap over the header', { ...GOOD, bitmapOffset: 16 }],
  ['bitmap beyond the file', { ...GOOD, bitmapOffset: 2 ** 50, pagesOffset: 2 ** 51 }],
  ['bitmap over the pages', { ...GOOD, bitmapOffset: 3 * 8192 }],
  ['pages not aligned', { ...GOOD, pagesOffset: 2 * 8192 + 1 }],
  ['pages over the header', { ...GOOD, bitmapOffset: 0, pagesOffset: PAGE }],
  ['pages beyond every file', { ...GOOD, pagesOffset: 2 ** 52 + 2 ** 51 }],
  ['another page size', { ...GOOD, pageSize: 65_536 }],
  ['an unknown version', { ...GOOD, version: 2 }],
  ['a name that cannot be shown', { ...GOOD, idstr: 'pc\nram' }],
];

for (const [what, entry, total = entry.usedLength] of HOSTILE) {
  test(`hostile block header: ${what}`, async () => {
    const path = join(folder, 'hostile');
    writeFileSync(path, hostile([entry], total));
    await refused(path, /^WIRE_/);
  });
}

test('hostile block lists: twice the same block', async () => {
  const path = join(folder, 'hostile');
  const second = { ...GOOD, bitmapOffset: 10 * 8192 + 4096, pagesOffset: 12 * 8192 };
  writeFileSync(path, hostile([GOOD, second], 2 * GOOD.usedLength));
  await refused(path, /^WIRE_UNEXPECTED_VALUE$/);
});

test('a checkpoint cut short while it is being sent is an error of that read', async () => {
  const path = join(folder, 'shrinking');
  await writeCheckpoint(path, { blocks: [{ idstr: 'pc.ram', usedLength: 4096 * PAGE }, ...BLOCKS.slice(1)] });
  const reader = await CheckpointReader.open(path);
  await reader.window(0, 0);
  const file = await open(path, 'r+');
  await file.truncate(5_000_000);
  await file.close();
  await assert.rejects(
    async () => {
      for (let page = 0; page < 4096; page += 512) await reader.window(0, page);
    },
    (error) => error instanceof FerryError && error.code === 'CHECKPOINT_IO',
  );
  await reader.close();
  assert.ok(existsSync(path));
});

async function refused(path: string, code: RegExp): Promise<void> {
  let reader: CheckpointReader | undefined;
  try {
    reader = await CheckpointReader.open(path);
  } catch (error) {
    assert.ok(error instanceof FerryError, `no typed error: ${error}`);
    assert.match(error.code, code, error.message);
    assert.ok(error.message.includes(path), error.message);
    return;
  }
  await reader.close();
  assert.fail('it was accepted');
}
