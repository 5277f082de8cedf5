/** Plays one cell of devices: two `run` processes, `migrate` between them, and the machine verified where it is then. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { explain } from '../../src/base/index.ts';
import type { QmpMigrationInfo } from '../../src/qemu/index.ts';
import { inTime } from '../campaign/deadline.ts';
import { ask, Spawned, startRun, TEMPORARY } from '../cli/spawned.ts';
import {
  BETWEEN,
  DEVICE_KINDS,
  DEVICE_WAYS,
  type DeviceCell,
  deviceCellName,
  deviceGuest,
  deviceScenario,
} from './devices.ts';
import type { Result } from './model.ts';

const MACHINE = 'workload-11.1';
const GUEST = ['--ram', '16M', '--vcpus', '2', '--dirty-rate', '30M', '--machine', MACHINE];
const VF = 'state-size=2M,initial-size=1M,working-set=512K,state-rate=1M,dma-size=1M,dma-rate=1M';
/** Less than the guest dirties, and enough for some rounds in a few seconds; bytes a second. */
const NARROW = 16_000_000;
const ROUNDS = 3;
const ROUNDS_MS = 60_000;
const MIGRATE_MS = 120_000;

interface Device {
  readonly name: string;
  readonly state: string;
  readonly resets: number;
}

/** Plays a cell. Never throws. */
export async function runDeviceCell(cell: DeviceCell): Promise<Result> {
  const startedMs = performance.now();
  const failure = await playDeviceCell(cell).then(
    () => undefined,
    (thrown) => explain(thrown),
  );
  return {
    cell: deviceCellName(cell),
    scenario: deviceScenario(cell),
    role: BETWEEN,
    a: 'vmferry',
    b: 'vmferry',
    machine: MACHINE,
    guest: deviceGuest(cell),
    outcome: failure === undefined ? 'pass' : 'fail',
    ...(failure === undefined ? {} : { reason: failure }),
    ms: Math.round(performance.now() - startedMs),
  };
}

/** Throws what is wrong. Leaves nothing behind. */
async function playDeviceCell({ kind, way, vfs, live }: DeviceCell): Promise<void> {
  const folder = await mkdtemp(join(TEMPORARY, 'devices-'));
  const ends: (() => Promise<void>)[] = [() => rm(folder, { recursive: true, force: true })];
  const owner = { after: (end: () => Promise<void>) => void ends.unshift(end) };
  try {
    const [a, b] = [join(folder, 'a'), join(folder, 'b')];
    const kinds: readonly string[] = DEVICE_KINDS[kind];
    const devices = Array.from({ length: vfs }, (_, i) => [
      '--device',
      `vf,${VF},seed=${i},${kinds[i % kinds.length]}`,
    ]);
    await Promise.all([
      startRun(owner, a, ...GUEST, ...devices.flat()),
      startRun(owner, b, ...GUEST, ...devices.flat(), '--incoming', 'defer'),
    ]);
    // Little enough to go within the downtime limit whatever was measured; until then the link is what keeps the guest here.
    await ask(a, 'migrate-set-parameters', live ? { 'max-bandwidth': NARROW, 'downtime-limit': 1 } : CONVERGE);
    const migrate = new Spawned(owner, ['migrate', a, b, '--json', ...DEVICE_WAYS[way]]);
    if (live) {
      await rounds(a);
      await ask(a, 'migrate-set-parameters', CONVERGE);
    }
    assert.equal((await inTime(migrate.result(0), MIGRATE_MS))['status'], 'completed');
    await arrived(a, b, vfs);
  } finally {
    for (const end of ends) await end();
  }
}

const CONVERGE = { 'max-bandwidth': 0, 'downtime-limit': 2_000, 'avail-switchover-bandwidth': 1_000_000_000 };

async function rounds(qmp: string): Promise<void> {
  const endMs = performance.now() + ROUNDS_MS;
  for (;;) {
    const info = await ask<QmpMigrationInfo>(qmp, 'query-migrate');
    if ((info.ram?.['dirty-sync-count'] ?? 0) > ROUNDS) return;
    assert(info.status !== 'completed', 'the guest was stopped before it had been followed for some rounds');
    assert(performance.now() < endMs, `no ${ROUNDS} rounds in time: ${info.status}`);
    await pause(20);
  }
}

/** The guest is in B with all of its devices and nowhere else, and all of it is right. */
async function arrived(a: string, b: string, vfs: number): Promise<void> {
  const statusOf = async (qmp: string) => (await ask<{ status: string }>(qmp, 'query-status')).status;
  assert.deepEqual([await statusOf(a), await statusOf(b)], ['postmigrate', 'running']);
  for (const [qmp, state] of [
    [a, 'STOP'],
    [b, 'RUNNING'],
  ] as const) {
    const devices = await ask<readonly Device[]>(qmp, 'x-query-devices');
    const found = devices.map((device) => [device.name, device.state, device.resets]);
    assert.deepEqual(
      found,
      Array.from({ length: vfs }, (_, i) => [`vf${i}`, state, 0]),
    );
  }
  await ask(b, 'stop');
  const { details } = await ask<{ details: readonly string[] }>(b, 'x-workload-verify');
  assert.deepEqual(details, []);
}
