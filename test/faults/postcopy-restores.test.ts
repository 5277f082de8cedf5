/** Smoke run of Linux guests restored by postcopy; at length, with 2 GiB: `npm run postcopy:restore`. */
import test from 'node:test';
import { smoke } from '../campaign/campaign.ts';
import { postcopyRestores } from '../campaign/postcopy-restores.ts';
import { linuxGuestMissing } from '../support/guests/guest.ts';
import { peerOrSkip } from '../support/peers.ts';

const { peer, skip } = await peerOrSkip('11.1');

test('a Linux guest restored by postcopy ticks before a tenth of it has been sent, and is whole after three cuts', {
  skip: skip || (linuxGuestMissing() ?? false),
}, async () => {
  await smoke(postcopyRestores({ ramMb: 512, peers: [peer!] }), 5, 1);
});
