/** Smoke run of the campaign of device faults; at length, every point in every way: `npm run faults:devices`. */
import test from 'node:test';
import { smoke } from '../campaign/campaign.ts';
import { deviceFaults } from '../campaign/device-faults.ts';

test('a device that fails in a migration, on either side: guest and devices run on, nothing hangs, the next migration works', async () => {
  await smoke(deviceFaults, 3, 8);
});
