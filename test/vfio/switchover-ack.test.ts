/** Machines with VFs move with switchover-ack: no guest is stopped before the VFs at the destination have what they prepare themselves with. */
import assert from 'node:assert/strict';
import test from 'node:test';
import type { MigrationInfo } from '../../src/migration/index.ts';
import type { Span, SpanKind } from '../../src/vfio/index.ts';
import { assertCompleted } from '../support/completed.ts';
import { memoryPair } from '../support/memory-channel.ts';
import { move, testSettings } from '../support/move.ts';
import { busyVfs, type MachineWithVfs, verifyAll, vfPair } from '../support/vf-machines.ts';

const SETTINGS = testSettings((settings) => {
  settings.setCapabilities([
    { capability: 'return-path', state: true },
    { capability: 'switchover-ack', state: true },
  ]);
  // What is to be sent never keeps the guest from being stopped: only the devices do.
  settings.setParameters({ 'downtime-limit': 2_000_000 });
});

/** Longer than everything else in these migrations takes. */
const ALLOCATION_MS = 300;

async function spansOf({ machine }: MachineWithVfs, kind: SpanKind): Promise<readonly (Span | undefined)[]> {
  return (await machine.reports()).map(({ spans }) => spans.find((span) => span.kind === kind));
}

/** For each of two devices whether it has PRE_COPY at the source, and at the destination; the devices that must be ready first. */
const CASES: readonly [machineType: string, source: string, destination: string, waits: readonly number[]][] = [
  ['workload-10.0', 'yes yes', 'yes yes', [0, 1]],
  ['workload-11.1', 'yes yes', 'yes yes', [0, 1]],
  ['workload-10.0', 'no no', 'yes yes', []],
  ['workload-11.1', 'no no', 'yes yes', []],
  // A destination of the older dialect counts those that have initial data there.
  ['workload-10.0', 'yes yes', 'no no', []],
  ['workload-11.1', 'yes yes', 'no no', [0, 1]],
  ['workload-10.0', 'yes no', 'yes yes', [0]],
  ['workload-11.1', 'yes no', 'yes yes', [0]],
  ['workload-10.0', 'yes no', 'no yes', []],
  ['workload-11.1', 'no yes', 'yes no', [1]],
];

for (const [machineType, here, there, waits] of CASES) {
  test(`${machineType}: PRE_COPY at the source: ${here}, at the destination: ${there}`, async (t) => {
    const vfs = (precopy: string) =>
      precopy
        .split(' ')
        .flatMap((has, i) => busyVfs(1, { precopy: has === 'yes', seed: i, 'allocation-ms': ALLOCATION_MS }));
    const workload = { machineType };
    const { source, destination } = await vfPair(t, { vfs: vfs(here), workload }, { vfs: vfs(there), workload });
    const channels = memoryPair();
    const { ended } = move({ source: source.machine, destination: destination.machine, channels, settings: SETTINGS });
    const { source: left, destination: arrived } = await ended;
    assertCompleted(arrived, left);
    const state: MigrationInfo['x-switchover-ack'] = here.includes('yes') ? 'given' : undefined;
    assert.equal(left.info['x-switchover-ack'], state);
    const ready = await spansOf(destination, 'initial');
    const stopped = await spansOf(source, 'stop');
    for (const i of waits) {
      const span = ready[i];
      assert.ok(span?.endMs !== undefined && span.endMs - span.startMs >= ALLOCATION_MS, `vf${i} has prepared itself`);
      assert.ok(span.endMs <= stopped[i]!.startMs, `vf${i} was ready before the guest was stopped`);
    }
    await verifyAll(destination);
  });
}
