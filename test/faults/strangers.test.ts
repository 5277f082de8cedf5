/** Smoke runs of the campaigns with hostile and silent peers and with many migrations at once; at length: `npm run strangers`, `npm run crowd`. */
import test from 'node:test';
import { smoke } from '../campaign/campaign.ts';
import { crowd } from '../campaign/crowd.ts';
import { strangers } from '../campaign/strangers.ts';

test('hostile and silent peers end a migration promptly, and only that', async () => {
  await smoke(strangers, 5, 30);
});

test('sixteen migrations at once in one process', async () => {
  await smoke(crowd, 5, 1);
});
