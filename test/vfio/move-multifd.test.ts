/** Devices move with their state on parallel channels, or beside them in the stream where the dialect knows no such packets. */
import assert from 'node:assert/strict';
import test from 'node:test';
import type { Settings } from '../../src/settings/index.ts';
import { assertCompleted } from '../support/completed.ts';
import { testSettings } from '../support/move.ts';
import { moveOver } from '../support/move-over.ts';
import { busyVfs, verifyAll, vfPair } from '../support/vf-machines.ts';

const MIB = 1024 * 1024;

type Values = Parameters<Settings['setParameters']>[0];

/** Whether the state of the devices goes on the channels: from 10.0 on, and never beside compressed pages. */
const CASES: readonly [machineType: string, values: Values, beside: boolean][] = [
  ['workload-11.1', { 'multifd-channels': 1 }, true],
  ['workload-11.1', { 'multifd-channels': 4 }, true],
  ['workload-10.0', { 'multifd-channels': 2 }, true],
  ['workload-9.2', { 'multifd-channels': 2 }, false],
  ['workload-11.1', { 'multifd-channels': 2, 'multifd-compression': 'zstd' }, false],
  ['workload-7.2', { 'multifd-channels': 2 }, false],
];

for (const [number, [machineType, values, beside]] of CASES.entries()) {
  // Whatever can be read while the devices run goes in the stream.
  const precopy = number % 2 === 1;
  test(`${precopy ? 'PRE_COPY' : 'no PRE_COPY'}, ${machineType}, ${JSON.stringify(values)}: ${beside ? 'on the channels' : 'in the stream'}`, async (t) => {
    const vfs = busyVfs(3, { precopy, 'state-rate': 2e6, 'dma-rate': 2e6 });
    const { source, destination } = await vfPair(t, { vfs, workload: { machineType, ram: 4 * MIB, dirtyRate: 1e6 } });
    const settings = testSettings((one) => {
      one.setCapabilities([{ capability: 'multifd', state: true }]);
      // What a machine with little to send is measured by says nothing of what the link could take.
      one.setParameters({ 'downtime-limit': 20_000, ...values });
    });
    const moved = await moveOver({ source: source.machine, destination: destination.machine, settings });
    const result = await moved.ended;
    assertCompleted(result.source, result.destination);
    const { transferred, 'multifd-bytes': onChannels = 0 } = result.source.info.ram!;
    if (!precopy) assert.equal(transferred - onChannels < 3 * 4 * MIB, beside, 'where the state went');
    await verifyAll(destination);
  });
}
