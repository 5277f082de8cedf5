/** The public library as a program uses it: everything from one import, several machines in one process. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { createWorkload, migrate, QmpServer, restore, Settings, save, VmHost } from '../src/index.ts';
import { assertCompleted } from './support/completed.ts';

const NO_SETTINGS = { capabilities: [], parameters: {} };

async function host(t: TestContext, path: string, incoming: boolean) {
  const machine = await createWorkload({ ram: 8 * 1024 ** 2, vcpus: 1, dirtyRate: 5e6, incoming });
  const settings = new Settings();
  const vm = new VmHost({ name: path, machine, settings, quit: async () => {} });
  const server = await QmpServer.listen({ host: vm, address: { kind: 'unix', path } });
  t.after(async () => {
    await vm.quit();
    await server.close();
    await machine.dispose();
  });
  if (!incoming) await vm.cont();
  return machine;
}

test('save, restore and migrate as calls, three machines in one process', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'vmferry-test-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const [a, b, c, file] = ['a', 'b', 'c', 'vm.ckpt'].map((name) => join(folder, name)) as [
    string,
    string,
    string,
    string,
  ];
  await host(t, a, false);
  await host(t, b, true);
  const last = await host(t, c, true);
  const saved = await save({ qmp: a, file, resume: false, settings: NO_SETTINGS });
  assertCompleted(saved);
  const restored = await restore({ qmp: b, file, paused: false, settings: NO_SETTINGS });
  assertCompleted(restored);
  const moved = await migrate({ source: b, destination: { qmp: c }, settings: NO_SETTINGS });
  assertCompleted(moved);
  await last.stop('paused');
  assert.equal((await last.verify()).pagesBad, 0);
});
