/** Smoke run of the soak; at length: `npm run soak`. */
import test from 'node:test';
import { judgeSoak, type Soak, soak } from '../campaign/soak.ts';

test('a small machine goes to and fro between processes', async () => {
  // Whether the downtime keeps to its limit is for a machine that has nothing else to do: here it may be longer.
  const options: Soak = { turns: 3, ram: '64M', dirtyRate: '50M', downtimeLimitMs: 1_000, seed: 7 };
  judgeSoak(options, await soak(options, () => {}, new AbortController().signal));
});
