import assert from 'node:assert/strict';
import { explain } from '../../src/base/index.ts';

/** What a conductor of either side, or a driver of both, says in the end. */
interface Result {
  readonly status: string;
  readonly error?: Error;
}

/** All have completed; if one has not, it says why. */
export function assertCompleted(...results: readonly Result[]): void {
  for (const result of results) assert.equal(result.status, 'completed', explain(result.error));
}
