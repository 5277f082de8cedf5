/** mapped-ram with multifd: threads copy pages between the machine and the file; nobody can tell how many they were. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { CheckpointReader, createWorkload, type WorkloadMachine } from '../../src/machine/index.ts';
import { type HostEvent, type MigrationStatus, VmHost } from '../../src/migration/index.ts';
import { Settings } from '../../src/settings/index.ts';
import { verified } from '../support/workload-pair.ts';

const MIB = 1024 * 1024;
const DEADLINE_MS = 30_000;

interface Subject {
  readonly host: VmHost;
  readonly machine: WorkloadMachine;
  /** Resolves with the first of these that the migration comes to. */
  reached(...wanted: MigrationStatus[]): Promise<MigrationStatus>;
}

interface Ways {
  /** 0: multifd off. */
  readonly channels: number;
  readonly directIo?: boolean;
  readonly maxBandwidth?: number;
}

async function subject(
  t: TestContext,
  { channels, directIo = false, maxBandwidth = 0 }: Ways,
  how: 'running' | 'prelaunch' | 'incoming',
): Promise<Subject> {
  const machine = await createWorkload({
    ram: 32 * MIB,
    vcpus: 2,
    dirtyRate: 20e6,
    fill: 0.5,
    seed: 3,
    incoming: how === 'incoming',
  });
  const settings = new Settings();
  settings.setCapabilities([
    { capability: 'events', state: true },
    { capability: 'mapped-ram', state: true },
    { capability: 'multifd', state: channels > 0 },
  ]);
  settings.setParameters({
    'max-bandwidth': maxBandwidth,
    'direct-io': directIo,
    ...(channels > 0 && { 'multifd-channels': channels }),
  });
  const host = new VmHost({ name: 'test', machine, settings, quit: () => machine.dispose() });
  const events: HostEvent[] = [];
  host.onEvent((event) => events.push(event));
  t.after(() => host.quit());
  if (how === 'running') await host.cont();
  const reached = (...wanted: MigrationStatus[]) =>
    new Promise<MigrationStatus>((resolve, reject) => {
      const now = () => {
        const { status } = host.queryMigrate();
        if (status === undefined || !wanted.includes(status)) return;
        clearTimeout(timer);
        off();
        // It says so before it lets go of the machine.
        setImmediate(resolve, status);
      };
      const timer = setTimeout(() => reject(new Error(`waited for ${wanted}`)), DEADLINE_MS);
      const off = host.onEvent(now);
      now();
    });
  return { host, machine, reached };
}

async function folder(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'vmferry-mapped-'));
  t.after(() => rm(path, { recursive: true, force: true }));
  return path;
}

/** A file system of its own; undefined, and the test is skipped, where that is not allowed. */
async function mounted(t: TestContext, ...how: string[]): Promise<string | undefined> {
  const path = await mkdtemp(join(tmpdir(), 'vmferry-mapped-'));
  try {
    execFileSync('mount', [...how, 'none', path], { stdio: 'ignore' });
  } catch {
    await rm(path, { recursive: true });
    t.skip('mounting a file system wants root');
    return undefined;
  }
  t.after(async () => {
    execFileSync('umount', [path]);
    await rm(path, { recursive: true });
  });
  return path;
}

async function store({ host, reached }: Subject, path: string): Promise<void> {
  await host.migrate(`file:${path}`);
  assert.equal(await reached('completed', 'failed'), 'completed', host.queryMigrate()['error-desc']);
}

async function load({ host, reached }: Subject, path: string): Promise<void> {
  await host.migrateIncoming(`file:${path}`);
  assert.equal(await reached('completed', 'failed'), 'completed', host.queryMigrate()['error-desc']);
}

for (const [write, read] of [
  [{ channels: 1 }, { channels: 4 }],
  [{ channels: 4 }, { channels: 0 }],
  [{ channels: 0 }, { channels: 3, directIo: true }],
  [{ channels: 16, directIo: true }, { channels: 1 }],
] as const satisfies readonly (readonly [Ways, Ways])[]) {
  test(`a running machine into a file ${JSON.stringify(write)} and out of it ${JSON.stringify(read)}`, async (t) => {
    const path = join(await folder(t), 'machine');
    const [from, to] = [await subject(t, write, 'running'), await subject(t, read, 'incoming')];
    await store(from, path);
    const { ram } = from.host.queryMigrate();
    assert.equal(ram!['multifd-bytes'] > 0, write.channels > 0);
    assert.ok(ram!.normal > 0 && ram!.duplicate > 0);
    await load(to, path);
    assert.equal(to.machine.runState, 'running');
    await verified(to.machine);
  });
}

test('one channel and several write the same file', async (t) => {
  const place = await folder(t);
  const files: Buffer[] = [];
  for (const channels of [0, 1, 3]) {
    // It has never run: three times the same machine.
    const from = await subject(t, { channels }, 'prelaunch');
    const path = join(place, `machine-${channels}`);
    await store(from, path);
    files.push(readFileSync(path));
  }
  for (const file of files) assert.ok(file.equals(files[0]!));
});

test('cancelled in the middle: no file, no threads, the guest runs on, and the next attempt succeeds', async (t) => {
  const place = await folder(t);
  const path = join(place, 'machine');
  const from = await subject(t, { channels: 16, maxBandwidth: 4 * MIB }, 'running');
  await from.host.migrate(`file:${path}`);
  await from.reached('active');
  assert.deepEqual(
    from.host.queryMigrationThreads().map(({ name }) => name),
    Array.from({ length: 16 }, (_, channel) => `mig/src/send_${channel}`),
  );
  await from.host.migrateCancel();
  await from.reached('cancelled');
  assert.deepEqual(readdirSync(place), []);
  assert.equal(from.host.status().running, true);
  from.host.settings.setParameters({ 'max-bandwidth': 0 });
  await store(from, path);
  await verified(from.machine);
});

test('a disk that fills up: the reason, the guest runs on, nothing stays behind', async (t) => {
  const place = await mounted(t, '-t', 'tmpfs', '-o', 'size=48m');
  if (place === undefined) return;
  const from = await subject(t, { channels: 3, maxBandwidth: 8 * MIB }, 'running');
  await from.host.migrate(`file:${join(place, 'machine')}`);
  await from.reached('active');
  // There was room when RAM was announced; somebody else takes it.
  try {
    writeFileSync(join(place, 'other'), Buffer.alloc(48 * MIB));
  } catch {}
  from.host.settings.setParameters({ 'max-bandwidth': 0 });
  await from.reached('failed');
  assert.match(from.host.queryMigrate()['error-desc'] ?? '', /machine: cannot write pages at \d+ \(no space left/);
  assert.equal(from.host.status().running, true);
  assert.deepEqual(readdirSync(place), ['other']);
});

test('a file that ends before its pages do: the reason, and the machine waits for another', async (t) => {
  const path = join(await folder(t), 'machine');
  const from = await subject(t, { channels: 2 }, 'running');
  await store(from, path);
  const whole = await CheckpointReader.open(path);
  const ram = whole.sharedRam();
  await whole.close();
  const to = await subject(t, { channels: 2 }, 'incoming');
  // Behind the look at its outline and before its pages are read: as a file system that loses them would.
  const cut = new Promise<void>((resolve) => {
    const off = to.host.onEvent((event) => {
      if (event.event !== 'MIGRATION' || event.data.status !== 'active') return;
      truncateSync(path, ram.blocks[0]!.pagesOffset + MIB);
      off();
      resolve();
    });
  });
  await to.host.migrateIncoming(`file:${path}`);
  await cut;
  await to.reached('failed');
  assert.match(to.host.queryMigrate()['error-desc'] ?? '', /machine: cannot read pages at \d+ \(EOF\)/);
  assert.equal(to.machine.runState, 'inmigrate');
});

test('direct-io where the file system has none is refused with the reason', async (t) => {
  const place = await mounted(t, '-t', 'ramfs');
  if (place === undefined) return;
  const elsewhere = join(await folder(t), 'machine');
  await store(await subject(t, { channels: 2 }, 'running'), elsewhere);
  const path = join(place, 'machine');
  writeFileSync(path, readFileSync(elsewhere));
  const to = await subject(t, { channels: 2, directIo: true }, 'incoming');
  await to.host.migrateIncoming(`file:${path}`);
  await to.reached('failed');
  assert.match(
    to.host.queryMigrate()['error-desc'] ?? '',
    /machine: direct-io is on, but its file system has no O_DIRECT/,
  );
  assert.ok(existsSync(path));
  // Without channels it has no effect.
  to.host.settings.setCapabilities([{ capability: 'multifd', state: false }]);
  await load(to, path);
  await verified(to.machine);
});
