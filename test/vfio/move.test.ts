/** A running machine with VFs moves between two engines of one process; machine, devices, their DMA and their talk are verified. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { assertCompleted } from '../support/completed.ts';
import { memoryPair } from '../support/memory-channel.ts';
import { type MoveOptions, move } from '../support/move.ts';
import { busyVfs, type MachineWithVfs, verifyAll, vfPair } from '../support/vf-machines.ts';

async function completed(source: MachineWithVfs, destination: MachineWithVfs, options: Partial<MoveOptions> = {}) {
  const moved = move({ source: source.machine, destination: destination.machine, channels: memoryPair(), ...options });
  const result = await moved.ended;
  assertCompleted(result.source, result.destination);
  return moved;
}

const KINDS = {
  'all options': {},
  'no PRE_COPY': { precopy: false },
  'no P2P': { p2p: false, 'peer-rate': 0 },
  'neither, and the machine logs its DMA': { precopy: false, p2p: false, 'dma-logging': false, 'peer-rate': 0 },
  'a part that can be read only when stopped': { 'initial-size': 1024 * 1024 },
};

for (const [name, given] of Object.entries(KINDS)) {
  test(`devices arrive running and whole: ${name}`, async (t) => {
    const { source, destination } = await vfPair(t, { vfs: busyVfs(2, given) });
    await new Promise((resolve) => setTimeout(resolve, 100));
    await completed(source, destination);
    assert.equal(destination.machine.runState, 'running');
    for (const vf of destination.vfs) assert.equal(await vf.state(), 'RUNNING');
    for (const vf of source.vfs) assert.equal(await vf.state(), 'STOP');
    const before = await destination.evidence();
    assert.ok(before.every(({ operations, dmaOperations }) => operations > 0 && dmaOperations > 0));
    await new Promise((resolve) => setTimeout(resolve, 50));
    await verifyAll(destination);
    const after = await destination.evidence();
    assert.ok(
      after.every(({ operations }, i) => operations > before[i]!.operations),
      'they go on',
    );
  });
}
