import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after } from 'node:test';
import fc from 'fast-check';
import { FerryError, testBit } from '../../../src/base/index.ts';
import {
  type CheckpointOptions,
  CheckpointReader,
  CheckpointWriter,
  type RamSink,
} from '../../../src/machine/index.ts';
import { decodeBody, encodeBody, globalState, globalStateOf } from '../../../src/wire/index.ts';
import {
  BLOCKS,
  CONFIGURATION,
  type Device,
  descriptionOf,
  fillCheckpoint,
  fullSection,
  GLOBAL_STATE,
  PAGE,
  stripe,
  writeCheckpoint,
} from './sample.ts';

const folder = mkdtempSync(join(tmpdir(), 'vmferry-checkpoint-'));
after(() => rmSync(folder, { recursive: true }));
let names = 0;
const freshPath = () => join(folder, `checkpoint-${names++}`);
const hasCode = (code: string) => (error: unknown) => error instanceof FerryError && error.code === code;

async function withReader<T>(
  path: string,
  body: (reader: CheckpointReader) => Promise<T>,
  options?: CheckpointOptions,
): Promise<T> {
  const reader = await CheckpointReader.open(path, options);
  try {
    return await body(reader);
  } finally {
    await reader.close();
  }
}

async function pageOf(reader: CheckpointReader, block: number, page: number): Promise<Buffer> {
  const window = await reader.window(block, page);
  const at = (page - window.firstPage) * PAGE;
  return window.bytes.subarray(at, at + PAGE);
}

test('what was written comes back: configuration, blocks, pages, sections, description', async () => {
  const path = freshPath();
  const uuid = Buffer.alloc(16, 7);
  const early: Device = { section: fullSection(2, 'virtio-mem-device-early'), body: Buffer.from('early') };
  const devices = [
    { section: fullSection(3, 'timer', 0, 2), body: Buffer.alloc(24, 1) },
    { section: fullSection(1, 'apic', 1, 3), body: Buffer.alloc(181, 2) },
    { section: fullSection(0, 'empty'), body: Buffer.alloc(0) },
    GLOBAL_STATE,
  ];
  await writeCheckpoint(path, { configuration: { ...CONFIGURATION, uuid }, early: [early], devices });
  assert.equal(statSync(path).mode & 0o777, 0o600, 'memory is for its owner only');
  await withReader(path, async (reader) => {
    assert.equal(reader.machineType, CONFIGURATION.machineType);
    assert.deepEqual(reader.uuid, uuid);
    assert.equal(reader.runState, 'paused');
    assert.deepEqual(
      reader.ram.map(({ idstr, usedLength, shared }) => ({ idstr, usedLength, shared })),
      BLOCKS.map((block) => ({ ...block, shared: false })),
    );
    const plain = ({ section: { idstr, instance, version }, body }: Device) => ({ idstr, instance, version, body });
    assert.deepEqual(reader.earlyDevices, [plain(early)]);
    const saved = await reader.saveDevices();
    assert.deepEqual(saved.sections, devices.map(plain));
    assert.equal(saved.description, descriptionOf([early, ...devices]));
    for (const { index, usedLength } of reader.ram) {
      for (let page = 0; page < usedLength / PAGE; page++) {
        const expected = page % 3 === 2 ? Buffer.alloc(PAGE) : stripe(Buffer.alloc(PAGE), index, page);
        assert.ok((await pageOf(reader, index, page)).equals(expected), `block ${index} page ${page}`);
        assert.equal(testBit(reader.pageMap(index), page), page % 3 !== 2);
      }
    }
  });
});

const ASLEEP = { has_vm_was_suspended: 1, vm_was_suspended: 1 };
for (const { saved, whole, paused } of [
  { saved: { runstate: 'running' }, whole: globalStateOf('running'), paused: globalStateOf('paused') },
  { saved: { runstate: 'shutdown' }, whole: globalStateOf('shutdown'), paused: globalStateOf('paused') },
  // QEMU 9.0 and later: asleep, and asleep and stopped as well.
  {
    saved: { runstate: 'suspended' },
    whole: globalStateOf('suspended'),
    paused: { ...globalStateOf('paused'), ...ASLEEP },
  },
  {
    saved: { runstate: 'paused', ...ASLEEP },
    whole: { ...globalStateOf('paused'), ...ASLEEP },
    paused: { ...globalStateOf('paused'), ...ASLEEP },
  },
]) {
  test(`what a guest did goes with it, or it is paused: ${JSON.stringify(saved)}`, async () => {
    const path = freshPath();
    const body = encodeBody(globalState, { ...globalStateOf(saved.runstate), ...saved });
    await writeCheckpoint(path, { devices: [{ ...GLOBAL_STATE, body }] });
    const sent = (options?: CheckpointOptions) =>
      withReader(
        path,
        async (reader) => decodeBody(globalState, 1, Buffer.from((await reader.saveDevices()).sections[0]!.body)),
        options,
      );
    assert.deepEqual(await sent(), whole);
    assert.deepEqual(await sent({ paused: true }), paused);
  });
}

test('the newest version of a page counts, whatever is still under way', async () => {
  type Step = { readonly page: number; readonly what: 'page' | 'zero' | 'read' | 'drain'; readonly run: number };
  const step: fc.Arbitrary<Step> = fc.record({
    page: fc.nat(699),
    what: fc.constantFrom('page', 'page', 'page', 'zero', 'read', 'drain'),
    run: fc.integer({ min: 1, max: 100 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 50, maxLength: 300 }), async (steps) => {
      const path = freshPath();
      const model = new Uint32Array(700);
      const content = (value: number) => Buffer.alloc(PAGE, value === 0 ? '\0' : `v${value};`);
      let version = 0;
      const pages = async (sink: RamSink, writer: CheckpointWriter) => {
        const read = Buffer.alloc(PAGE);
        for (const { page, what, run } of steps) {
          for (let at = page; at < Math.min(700, page + run); at++) {
            if (what === 'page') {
              model[at] = ++version;
              sink.page(0, at * PAGE, content(version), 0);
            } else if (what === 'zero') {
              model[at] = 0;
              sink.zero(0, at * PAGE);
            } else if (what === 'read') {
              sink.read(0, at * PAGE, read);
              assert.ok(read.equals(content(model[at]!)), `page ${at} read back`);
            }
          }
          if (what === 'drain') await writer.drain();
        }
      };
      await writeCheckpoint(path, { pages });
      await withReader(path, async (reader) => {
        for (const page of model.keys()) {
          assert.ok((await pageOf(reader, 0, page)).equals(content(model[page]!)), `page ${page}`);
        }
        // And in an order that no read-ahead expects.
        for (let i = 0; i < 50; i++) {
          const page = (i * 389) % 700;
          assert.ok((await pageOf(reader, 0, page)).equals(content(model[page]!)));
          assert.ok((await pageOf(reader, 1, i)).equals(Buffer.alloc(PAGE)));
        }
      });
      rmSync(path);
    }),
    { seed: 20261121, numRuns: 12 },
  );
});

test('more pages at once than the queue holds: the sink waits, nothing is lost', async () => {
  const path = freshPath();
  const blocks = [{ idstr: 'pc.ram', usedLength: 10_000 * PAGE }];
  await writeCheckpoint(path, {
    blocks,
    pages: (sink) => {
      const page = Buffer.alloc(PAGE);
      for (let at = 9_999; at >= 0; at--) sink.page(0, at * PAGE, stripe(page, 0, at), 0);
    },
  });
  await withReader(path, async (reader) => {
    for (let page = 0; page < 10_000; page += 7) {
      assert.equal((await pageOf(reader, 0, page)).readUInt32LE(0), page);
    }
  });
});

test('sections that are not what the description says are refused, here and in a file', async () => {
  const timer: Device = { section: fullSection(3, 'timer', 0, 2), body: Buffer.alloc(24, 1) };
  const longer = { ...timer, body: Buffer.alloc(25) };
  const path = freshPath();
  for (const description of [descriptionOf([longer, GLOBAL_STATE]), descriptionOf([timer]), '{"devices":', '[]']) {
    const filling = fillCheckpoint(path, { devices: [timer, GLOBAL_STATE], description });
    await assert.rejects(filling, hasCode('CHECKPOINT_DEVICES'));
  }
  assert.deepEqual(beside(path), []);

  await writeCheckpoint(path, { devices: [timer, GLOBAL_STATE] });
  const bytes = readFileSync(path);
  const at = bytes.lastIndexOf('"size":24');
  bytes.write('"size":23', at);
  writeFileSync(path, bytes);
  await assert.rejects(CheckpointReader.open(path), hasCode('CHECKPOINT_DEVICES'));
});

test('a machine without a description is taken as it is', async () => {
  const path = freshPath();
  await writeCheckpoint(path, { description: '' });
  await withReader(path, async (reader) => {
    const { sections, description } = await reader.saveDevices();
    assert.deepEqual([sections.length, description], [1, '']);
  });
});

test('until commit the name does not exist; discard leaves nothing, and an older file as it was', async () => {
  const path = freshPath();
  const writer = await fillCheckpoint(path);
  assert.ok(!existsSync(path));
  assert.equal(beside(path).length, 1);
  // Even under its temporary name it is no checkpoint yet.
  await assert.rejects(CheckpointReader.open(join(folder, beside(path)[0]!)), FerryError);
  await writer.discard();
  await writer.discard();
  assert.deepEqual(beside(path), []);

  writeFileSync(path, 'older');
  await (await fillCheckpoint(path)).discard();
  assert.equal(readFileSync(path, 'latin1'), 'older');
  await writeCheckpoint(path);
  await withReader(path, async ({ machineType }) => assert.equal(machineType, CONFIGURATION.machineType));
  assert.deepEqual(beside(path), []);
});

test('a symbolic link stays one, the file behind it is replaced', async () => {
  const [path, link] = [freshPath(), freshPath()];
  writeFileSync(path, 'older');
  symlinkSync(path, link);
  await writeCheckpoint(link);
  await withReader(path, async ({ machineType }) => assert.equal(machineType, CONFIGURATION.machineType));
  assert.ok(readFileSync(link).equals(readFileSync(path)));
});

test('places where no checkpoint can be are refused before anything is sent', async () => {
  const directory = freshPath();
  mkdirSync(directory);
  const fifo = freshPath();
  execFileSync('mkfifo', [fifo]);
  for (const path of [directory, fifo]) {
    await assert.rejects(new CheckpointWriter(path).open(), hasCode('CHECKPOINT_PATH'));
    await assert.rejects(CheckpointReader.open(path), hasCode('CHECKPOINT_PATH'));
  }
  const nowhere = join(folder, 'none', 'checkpoint');
  await assert.rejects(new CheckpointWriter(nowhere).open(), /cannot make a file beside it \(ENOENT\)/);
  await assert.rejects(CheckpointReader.open(nowhere), /cannot open the checkpoint \(ENOENT\)/);
});

test('a machine larger than the disk is refused up front, with both sizes', async () => {
  const path = freshPath();
  const blocks = [{ idstr: 'pc.ram', usedLength: 2 ** 50 }];
  await assert.rejects(
    fillCheckpoint(path, { blocks }),
    (error: Error) => hasCode('CHECKPOINT_SPACE')(error) && error.message.includes(String(2 ** 50)),
  );
  assert.deepEqual(beside(path), []);
});

test('iterable state that is not RAM is refused by name', async () => {
  const path = freshPath();
  const section = { ...fullSection(9, 'dirty-bitmap'), kind: 'start' } as const;
  await assert.rejects(
    fillCheckpoint(path, { devices: [{ section, body: Buffer.alloc(1) }] }),
    (error: Error) => hasCode('CHECKPOINT_UNSUPPORTED')(error) && error.message.includes('dirty-bitmap'),
  );
});

test('a block that is ignored as shared has no place in the file, and says so', async () => {
  const path = freshPath();
  const blocks = BLOCKS.map((block, index) => ({ ...block, guestAddress: index * 2 ** 20 }));
  await writeCheckpoint(path, {
    configuration: { ...CONFIGURATION, capabilities: ['x-ignore-shared'] },
    blocks,
    ignoreShared: true,
    pages: (sink) => {
      sink.page(0, 5 * PAGE, stripe(Buffer.alloc(PAGE), 0, 5), 0);
      sink.zero(2, 0);
    },
  });
  await withReader(path, async (reader) => {
    assert.equal(reader.ignoreShared, true);
    // Its entry comes first, so that the regions of the others may stay where they are.
    assert.deepEqual(
      reader.ram.map(({ idstr, guestAddress, shared }) => ({ idstr, guestAddress, shared })),
      [
        { idstr: 'pc.bios', guestAddress: 2 ** 20, shared: true },
        { idstr: 'pc.ram', guestAddress: 0, shared: false },
        { idstr: '/rom@etc/acpi/rsdp', guestAddress: 2 ** 21, shared: false },
      ],
    );
    assert.equal((await pageOf(reader, 1, 5)).readUInt32LE(0), 5);
  });
});

/** Temporary files of a checkpoint. */
function beside(path: string): string[] {
  return readdirSync(folder).filter((name) => name.startsWith(`.${path.slice(folder.length + 1)}.vmferry-`));
}
