/** Smoke run of cuts of a postcopy into QEMU; at length: `npm run cuts:postcopy-qemu`. */
import test from 'node:test';
import { smoke } from '../campaign/campaign.ts';
import { postcopyQemuCuts } from '../campaign/postcopy-qemu-cuts.ts';
import { peerOrSkip } from '../support/peers.ts';

const { peer, skip } = await peerOrSkip('11.1');

test('a postcopy into QEMU, cut anywhere on any channel, recovers, and the guest is whole', { skip }, async () => {
  await smoke(postcopyQemuCuts([peer!]), 6, 4);
});
