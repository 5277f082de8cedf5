/** Devices write to guest memory that a postcopy has not brought yet: either end refuses one with devices, and names them. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { explain } from '../../src/base/index.ts';
import { memoryPair } from '../support/memory-channel.ts';
import { move, testSettings } from '../support/move.ts';
import { BUSY_VF, busyVfs, verifyAll, vfPair } from '../support/vf-machines.ts';

const POSTCOPY = testSettings((settings) => settings.setCapabilities([{ capability: 'postcopy-ram', state: true }]));
/** Of a machine whose devices write to it: the other end has it too. */
const MEMORY = { deviceMemory: BUSY_VF['dma-size'] };

test('the source names the device; the guest runs on', async (t) => {
  const { source, destination } = await vfPair(t, { vfs: busyVfs(1) });
  const ends = { source: source.machine, destination: destination.machine };
  const result = await move({ ...ends, settings: POSTCOPY, channels: memoryPair() }).ended;
  assert.equal(result.source.status, 'failed');
  assert.match(explain('error' in result.source ? result.source.error : undefined), /with device 0000:00:04\.0\/vfio/);
  assert.equal(source.machine.runState, 'running');
  await verifyAll(source);
});

test('the destination names its device to a source that has none', async (t) => {
  const { source, destination } = await vfPair(t, { vfs: [], workload: MEMORY }, { vfs: busyVfs(1) });
  const ends = { source: source.machine, destination: destination.machine };
  const result = await move({ ...ends, settings: POSTCOPY, channels: memoryPair() }).ended;
  assert.equal(result.destination.status, 'failed');
  assert.match(explain(result.destination.error), /postcopy into a machine with 0000:00:04\.0\/vfio/);
  assert.equal(source.machine.runState, 'running');
  await verifyAll(source);
});
