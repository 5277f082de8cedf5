/** The part of the conformance matrix that every test run plays; all of it: npm run conformance. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { allCells } from './matrix.ts';
import { cellName } from './model.ts';
import { runCell } from './runner.ts';

for (const cell of allCells().filter(({ smoke }) => smoke)) {
  test(cellName(cell), async (t) => {
    const { outcome, reason } = await runCell(cell);
    if (outcome === 'skip') t.skip(reason);
    else assert.equal(outcome, 'pass', reason);
  });
}
