/** Smoke runs of cuts of a postcopy; at length: `npm run cuts:postcopy`, `npm run cuts:postcopy-qemu`. */
import test from 'node:test';
import { smoke } from '../campaign/campaign.ts';
import { postcopyCuts } from '../campaign/postcopy-cuts.ts';
import { postcopyQemuCuts } from '../campaign/postcopy-qemu-cuts.ts';
import { peerOrSkip } from '../support/peers.ts';

const { peer, skip } = await peerOrSkip('11.1');

test('a postcopy whose channels are cut anywhere, also while it recovers, goes on and loses nothing', async () => {
  await smoke(postcopyCuts, 3, 8);
});

test('a postcopy into QEMU, cut anywhere on any channel, recovers, and the guest is whole', { skip }, async () => {
  await smoke(postcopyQemuCuts([peer!]), 6, 4);
});
