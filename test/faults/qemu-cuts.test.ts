/** Smoke runs of cuts between QEMU and vmferry; at length: `npm run cuts:qemu`. */
import test from 'node:test';
import { REQUIRED_PEERS } from '../../src/qemu/index.ts';
import { smoke } from '../campaign/campaign.ts';
import { qemuCuts } from '../campaign/qemu-cuts.ts';
import { peerOrSkip } from '../support/peers.ts';

for (const name of REQUIRED_PEERS) {
  const { peer, skip } = await peerOrSkip(name);
  test(`QEMU ${name} into a checkpoint: after a cut its guest runs on, and no file is left`, { skip }, async () => {
    await smoke(qemuCuts([peer!]), 4, 6);
  });
}
