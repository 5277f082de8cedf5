/** Parallel channels on which nothing comes, or nothing is taken, any more, while all connections stay: a bounded end, with the right reason at the end that has it. */
import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import type { DestinationMachine, SourceMachine } from '../../src/machine/index.ts';
import { type Settings, type TimedWait, WAITS } from '../../src/settings/index.ts';
import type { Address } from '../../src/transport/index.ts';
import { MULTIFD_INITIAL_BYTES } from '../../src/wire/index.ts';
import { type CutProxy, cutProxy } from '../support/cut-proxy.ts';
import { moveOver } from '../support/move-over.ts';
import { assertOverdue, reasonsShown, settingsFor } from '../support/silence.ts';
import { busyVfs, vfPair } from '../support/vf-machines.ts';
import { workloadPair } from '../support/workload-pair.ts';

const MIB = 1024 * 1024;
/** A connection of the source that is not its first. */
const CHANNEL = 1;

function multifd(wait?: TimedWait): Settings {
  return settingsFor(wait, 'multifd');
}

/** Bytes of the channel that still come through, or what decides it when some are about to. */
type Silence = number | ((status: string, byteCount: number) => number | undefined);

/** A move of which one channel falls silent in both directions. It ends with the test. */
async function silenced(
  t: TestContext,
  machines: { readonly source: SourceMachine; readonly destination: DestinationMachine },
  [settings, destinationSettings]: readonly [Settings, Settings],
  silence: Silence,
) {
  const { source, destination } = machines;
  let proxy: CutProxy | undefined;
  const plan = (after: number) => ({ connection: CHANNEL, direction: 'toTarget', after, how: 'blackhole' }) as const;
  const via = async (listening: Address) => {
    proxy = await cutProxy(
      listening as Address & { kind: 'tcp' },
      typeof silence === 'number' ? plan(silence) : undefined,
    );
    return proxy.address;
  };
  const moved = await moveOver({ source, destination, settings, destinationSettings, via });
  t.after(() => proxy!.close());
  let passed = 0;
  let after: number | undefined;
  proxy!.onBytes = (direction, bytes, connection) => {
    if (typeof silence === 'number' || direction !== 'toTarget' || connection !== CHANNEL) return;
    if (after === undefined) {
      after = silence(moved.outgoing.status, passed);
      if (after !== undefined) proxy!.arm(plan(after));
    }
    passed += bytes.length;
  };
  return moved;
}

const SYNCS: readonly [where: string, machineType: string, passes: number][] = [
  ['before its first SYNC', 'workload-11.1', MULTIFD_INITIAL_BYTES],
  ['before its first SYNC', 'workload-7.2', MULTIFD_INITIAL_BYTES],
  ['among its pages', 'workload-11.1', 40_000],
  ['among its pages', 'workload-8.0', 40_000],
];

for (const [where, machineType, passes] of SYNCS) {
  test(`a channel on which the source falls silent ${where}, ${machineType}: x-lag-timeout`, async (t) => {
    const machines = await workloadPair(t, { ram: 4 * MIB, vcpus: 1, dirtyRate: 1e6, machineType });
    await machines.source.resume();
    const moved = await silenced(t, machines, [multifd(), multifd('laggards')], passes);
    const reasons = reasonsShown(t, moved.incoming);
    const { source, destination } = await moved.ended;
    assertOverdue(destination.error, 'laggards');
    assert.ok(reasons.has(WAITS.laggards.what), [...reasons].join(', '));
    assert.equal(source.status, 'failed');
    assert.equal(machines.source.runState, 'running');
    assert.equal(machines.destination.runState, 'inmigrate');
  });
}

test('a channel on which the source falls silent in the state of a device: x-lag-timeout, and the guest goes on there', async (t) => {
  const vfs = busyVfs(2, { precopy: false, 'state-rate': 1, 'dma-rate': 1 });
  const pair = await vfPair(t, { vfs, workload: { ram: 4 * MIB, dirtyRate: 0 } });
  const machines = { source: pair.source.machine, destination: pair.destination.machine };
  const source = multifd();
  source.setParameters({ 'downtime-limit': 20_000 });
  const moved = await silenced(t, machines, [source, multifd('laggards')], (status, passed) =>
    status === 'device' ? passed + 100_000 : undefined,
  );
  const { source: left, destination: arrived } = await moved.ended;
  assertOverdue(arrived.error, 'laggards');
  assert.equal(left.status, 'failed');
  assert.equal(pair.source.workload.runState, 'running');
});

test('a channel that the destination does not read any more: x-stall-timeout', async (t) => {
  const machines = await workloadPair(t, { ram: 48 * MIB, vcpus: 1, dirtyRate: 1e6, fill: 1 });
  await machines.source.resume();
  const moved = await silenced(t, machines, [multifd('room'), multifd()], 40_000);
  const reasons = reasonsShown(t, moved.outgoing);
  const { source, destination } = await moved.ended;
  assertOverdue('error' in source ? source.error : undefined, 'room');
  assert.ok(reasons.has(WAITS.room.what), [...reasons].join(', '));
  assert.equal(destination.status, 'failed');
  assert.equal(machines.source.runState, 'running');
});
