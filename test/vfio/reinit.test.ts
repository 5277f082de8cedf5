/** A VF that is set up anew while it migrates: its new initial data, too, is at the destination before the guest is stopped, where the dialect can say so. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { assertCompleted } from '../support/completed.ts';
import { memoryPair } from '../support/memory-channel.ts';
import { move, testSettings } from '../support/move.ts';
import { busyVfs, verifyAll, vfPair } from '../support/vf-machines.ts';

/** After the initial data is out: it has been announced by then. */
const REINIT_MS = 600;
/** The destination is not ready before that; then the device has long been set up anew. */
const ALLOCATION_MS = 2000;

/** From 11.1 on each announcement is answered; before that the destination has one answer for all. */
for (const [machineType, announced] of [
  ['workload-11.1', 2],
  ['workload-10.0', 1],
] as const) {
  test(`${machineType}: initial data is announced ${announced === 1 ? 'once' : 'again'}`, async (t) => {
    const vfs = busyVfs(1, { 'reinit-ms': REINIT_MS, 'allocation-ms': ALLOCATION_MS });
    const { source, destination } = await vfPair(t, { vfs, workload: { machineType } });
    const settings = testSettings((one) => {
      one.setCapabilities([
        { capability: 'return-path', state: true },
        { capability: 'switchover-ack', state: true },
      ]);
      one.setParameters({ 'downtime-limit': 2_000_000 });
    });
    const ends = { source: source.machine, destination: destination.machine };
    const result = await move({ ...ends, settings, channels: memoryPair() }).ended;
    assertCompleted(result.source, result.destination);
    assert.equal(result.source.info['x-switchover-ack'], 'given');
    assert.equal(source.machine.iterables.at(-1)!.initialData?.announced, announced);
    await verifyAll(destination);
  });
}
