/** A saved guest runs at once in a real QEMU while its memory is still in the file: both dialects of preempt, and connections that break. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { CheckpointReader } from '../../../src/machine/index.ts';
import { REQUIRED_PEERS } from '../../../src/qemu/index.ts';
import { peerOrSkip } from '../../support/peers.ts';
import { DIES_OF_PREEMPT_RECOVERY, PostcopyRestore } from '../../support/postcopy-restore.ts';
import { QemuLab } from '../../support/qemu-lab.ts';

const MIB = 1024 * 1024;

for (const version of REQUIRED_PEERS) {
  const { peer, skip } = await peerOrSkip(version);
  for (const machineVersion of new Set(['7.2', version])) {
    const machine = `pc-i440fx-${machineVersion}`;
    const preempt = version !== DIES_OF_PREEMPT_RECOVERY;
    test(`QEMU ${version}, ${machine}: ${preempt ? 'preempt, and ' : ''}three connections that break on the way`, {
      skip,
    }, async (t) => {
      assert(peer !== undefined);
      const lab = await QemuLab.open(t);
      const a = await lab.start(peer, { machine });
      const file = await lab.save(a, 'vm.ckpt');
      const b = await lab.start(peer, { machine, incoming: true });
      const reader = await CheckpointReader.open(file);
      t.after(() => reader.close());
      const restored = await PostcopyRestore.open(reader, b, { preempt, bandwidth: 30 * MIB });
      t.after(() => restored.close());
      await restored.start();
      for (const how of ['reset', 'end', 'reset'] as const) {
        await restored.sent(4 * MIB);
        await restored.sever(how);
        await restored.recover();
      }
      await restored.completed();
      assert.ok(restored.requests > 0, 'pages were asked for');
      await lab.guest.check([a, b]);
    });
  }

  const preempt = version === DIES_OF_PREEMPT_RECOVERY;
  test(`QEMU ${version}: ${preempt ? 'with' : 'without'} preempt, as fast as it goes`, { skip }, async (t) => {
    assert(peer !== undefined);
    const machine = `pc-i440fx-${version}`;
    const lab = await QemuLab.open(t, { pageCount: 4096 });
    const a = await lab.start(peer, { machine });
    const file = await lab.save(a, 'vm.ckpt');
    const b = await lab.start(peer, { machine, incoming: true });
    const reader = await CheckpointReader.open(file);
    t.after(() => reader.close());
    const restored = await PostcopyRestore.open(reader, b, { preempt, bandwidth: 0 });
    t.after(() => restored.close());
    await restored.start();
    await restored.completed();
    await lab.guest.check([a, b]);
  });
}
