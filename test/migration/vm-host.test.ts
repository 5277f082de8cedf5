/** A process as its manager sees it: what QMP may ask of it, in which state, and files as the far side. */
import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { createWorkload, type WorkloadMachine } from '../../src/machine/index.ts';
import { type HostEvent, type MigrationStatus, VmHost } from '../../src/migration/index.ts';
import { Settings } from '../../src/settings/index.ts';

const MIB = 1024 * 1024;
const DEADLINE_MS = 30_000;

interface Subject {
  readonly host: VmHost;
  readonly machine: WorkloadMachine;
  readonly events: HostEvent[];
}

async function subject(t: { after(f: () => Promise<void>): void }, incoming: boolean): Promise<Subject> {
  const machine = await createWorkload({ ram: 8 * MIB, vcpus: 1, dirtyRate: 2e6, incoming });
  const settings = new Settings();
  settings.setCapabilities([{ capability: 'events', state: true }]);
  settings.setParameters({ 'max-bandwidth': 0 });
  const host = new VmHost({ name: 'test', machine, settings, quit: () => machine.dispose() });
  const events: HostEvent[] = [];
  host.onEvent((event) => events.push(event));
  t.after(() => host.quit());
  if (!incoming) await host.cont();
  return { host, machine, events };
}

function status({ host }: Subject, ...wanted: MigrationStatus[]): Promise<MigrationStatus> {
  return new Promise((resolve, reject) => {
    const now = () => {
      const is = host.queryMigrate().status;
      if (is === undefined || !wanted.includes(is)) return;
      clearTimeout(timer);
      off();
      resolve(is);
    };
    const timer = setTimeout(() => {
      off();
      reject(new Error(`waited for ${wanted}, is ${JSON.stringify(host.queryMigrate())}`));
    }, DEADLINE_MS);
    const off = host.onEvent(now);
    now();
  });
}

async function folder(t: { after(f: () => Promise<void>): void }): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'vmferry-test-'));
  t.after(() => rm(path, { recursive: true, force: true }));
  return path;
}

async function verified(machine: WorkloadMachine): Promise<void> {
  if (machine.runState === 'running') await machine.stop('paused');
  const { bad, registersBad } = await machine.verify();
  assert.deepEqual({ bad, registersBad }, { bad: [], registersBad: [] });
}

test('tcp with port 0: query-migrate tells the real address, the guest arrives, events say what happened', async (t) => {
  const [from, to] = [await subject(t, false), await subject(t, true)];
  await to.host.migrateIncoming('tcp:127.0.0.1:0');
  const [address] = to.host.queryMigrate()['socket-address'] ?? [];
  assert.ok(address?.type === 'inet' && Number(address.port) > 0);
  await from.host.migrate(`tcp:127.0.0.1:${address.port}`);
  assert.equal(await status(from, 'completed', 'failed'), 'completed');
  await status(to, 'completed');
  assert.deepEqual(to.host.status(), { running: true, status: 'running' });
  assert.deepEqual(from.host.status(), { running: false, status: 'postmigrate' });
  const names = from.events.map((e) => (e.event === 'MIGRATION' ? e.data.status : e.event));
  assert.deepEqual(
    names.filter((name) => name !== 'MIGRATION_PASS'),
    ['RESUME', 'setup', 'active', 'STOP', 'device', 'completed'],
  );
  await verified(to.machine);
  await assert.rejects(from.host.migrate('tcp:127.0.0.1:1'), /migrated already/);
  await from.host.cont();
  assert.equal(from.host.status().running, true);
});

test('mapped-ram and file: a running machine is written to a checkpoint and comes back from it', async (t) => {
  const path = join(await folder(t), 'checkpoint');
  const [from, to] = [await subject(t, false), await subject(t, true)];
  for (const { host } of [from, to]) host.settings.setCapabilities([{ capability: 'mapped-ram', state: true }]);
  await from.host.migrate(`file:${path}`);
  assert.equal(await status(from, 'completed', 'failed'), 'completed', from.host.queryMigrate()['error-desc']);
  await to.host.migrateIncoming(`file:${path}`);
  assert.equal(await status(to, 'completed', 'failed'), 'completed', to.host.queryMigrate()['error-desc']);
  assert.equal(to.machine.runState, 'running');
  await verified(to.machine);
});

test('mapped-ram wants a file, and the reason why one cannot be written is told; the guest goes on', async (t) => {
  const from = await subject(t, false);
  from.host.settings.setCapabilities([{ capability: 'mapped-ram', state: true }]);
  await assert.rejects(from.host.migrate('tcp:127.0.0.1:1'), /mapped-ram over tcp/);
  const path = await folder(t);
  await from.host.migrate(`file:${join(path, 'no', 'such', 'folder')}`);
  await status(from, 'failed');
  assert.match(from.host.queryMigrate()['error-desc'] ?? '', /no.such.folder/);
  assert.equal(from.host.status().running, true);
  assert.deepEqual(await readdir(path), []);
});

test('a plain file: stream goes out and comes in', async (t) => {
  const path = join(await folder(t), 'stream');
  const [from, to] = [await subject(t, false), await subject(t, true)];
  await from.host.migrate(`file:${path},offset=4096`);
  assert.equal(await status(from, 'completed', 'failed'), 'completed', from.host.queryMigrate()['error-desc']);
  await to.host.migrateIncoming(`file:${path},offset=4096`);
  assert.equal(await status(to, 'completed', 'failed'), 'completed', to.host.queryMigrate()['error-desc']);
  await verified(to.machine);
});

test('what does not fit the state is refused by name', async (t) => {
  const [from, to] = [await subject(t, false), await subject(t, true)];
  await assert.rejects(to.host.migrate('tcp:127.0.0.1:1'), /waits for an incoming migration/);
  await assert.rejects(from.host.migrateIncoming('tcp:127.0.0.1:0'), /-incoming/);
  await assert.rejects(to.host.cont(), /has not arrived/);
  await assert.rejects(from.host.migrate('smoke:signals'), /smoke/);
  await assert.rejects(from.host.migrateContinue('pre-switchover'), /state none/);
  await from.host.migrateCancel();
  await Promise.all([
    to.host.migrateIncoming('tcp:127.0.0.1:0'),
    assert.rejects(to.host.migrateIncoming('tcp:127.0.0.1:0'), /awaited or under way/),
  ]);
});

test('a dead address fails with the reason; the guest has not noticed, and the next try works', async (t) => {
  const [from, to] = [await subject(t, false), await subject(t, true)];
  await from.host.migrate(`unix:${join(await folder(t), 'nobody')}`);
  await status(from, 'failed');
  assert.match(from.host.queryMigrate()['error-desc'] ?? '', /ENOENT|refused|no such/i);
  assert.ok(!from.events.some((e) => e.event === 'STOP'));
  await to.host.migrateIncoming('tcp:127.0.0.1:0');
  const [address] = to.host.queryMigrate()['socket-address'] ?? [];
  assert.ok(address?.type === 'inet');
  await from.host.migrate(`tcp:127.0.0.1:${address.port}`);
  assert.equal(await status(from, 'completed', 'failed'), 'completed');
});
