/** Smoke runs of the campaigns that cut links; at length: `npm run cuts`. */
import test from 'node:test';
import { smoke } from '../campaign/campaign.ts';
import { embeddedCuts } from '../campaign/embedded-cuts.ts';

test('a cut link between embedded machines leaves the guest at one end and nothing behind', async () => {
  await smoke(embeddedCuts, 12, 20);
});
