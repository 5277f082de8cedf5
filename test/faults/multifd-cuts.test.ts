/** Smoke run of the campaign that cuts multifd channels; at length: `npm run cuts:multifd`. */
import test from 'node:test';
import { smoke } from '../campaign/campaign.ts';
import { multifdCuts } from '../campaign/multifd-cuts.ts';

test('a cut multifd channel fails the migration, which names it; the guest runs on, nothing is left behind', async () => {
  await smoke(multifdCuts, 11, 8);
});
