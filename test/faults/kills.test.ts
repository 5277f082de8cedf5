/** Smoke run of the campaign that kills processes; at length: `npm run kills`. */
import test from 'node:test';
import { smoke } from '../campaign/campaign.ts';
import { kills } from '../campaign/kills.ts';

test('a process killed in the middle of a migration leaves the guest whole at the other end, or nothing', async () => {
  await smoke(kills(), 5, 4);
});
