/** Smoke run of the campaign that cuts links between machines with devices; at length: `npm run cuts:devices`. */
import test from 'node:test';
import { smoke } from '../campaign/campaign.ts';
import { deviceCuts } from '../campaign/device-cuts.ts';

test('a cut link between machines with VFs leaves guest and devices whole at one end, and nothing behind', async () => {
  await smoke(deviceCuts, 5, 10);
});
