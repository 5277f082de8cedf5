/** Smoke runs of cuts between QEMU and vmferry; at length: `npm run cuts:qemu`, `npm run cuts:restore`. */
import test from 'node:test';
import { REQUIRED_PEERS } from '../../src/qemu/index.ts';
import { smoke } from '../campaign/campaign.ts';
import { qemuCuts } from '../campaign/qemu-cuts.ts';
import { restoreCuts } from '../campaign/restore-cuts.ts';
import { peerOrSkip } from '../support/peers.ts';

for (const name of REQUIRED_PEERS) {
  const { peer, skip } = await peerOrSkip(name);
  test(`QEMU ${name} into a checkpoint: after a cut its guest runs on, and no file is left`, { skip }, async () => {
    await smoke(qemuCuts([peer!]), 4, 6);
  });

  test(`a checkpoint into QEMU ${name}: after a cut it runs no half guest`, { skip }, async () => {
    await smoke(restoreCuts([peer!]), 4, 5);
  });
}
