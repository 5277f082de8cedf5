/** The part of the conformance matrix that every test run plays; all of it: npm run conformance. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { after, describe, it } from 'node:test';
import { allCells } from './matrix.ts';
import { cellName, type Result } from './model.ts';
import { renderReport } from './report.ts';
import { runCell } from './runner.ts';

const results: Result[] = [];

// Two at a time: a cell mostly waits, for a guest to boot and processes to start.
describe('conformance', { concurrency: 2 }, () => {
  for (const [index, cell] of allCells()
    .filter(({ smoke }) => smoke)
    .entries()) {
    it(cellName(cell), async (t) => {
      const result = await runCell(cell);
      results[index] = result;
      const { outcome, reason } = result;
      if (outcome === 'skip') t.skip(reason);
      else assert.equal(outcome, 'pass', reason);
    });
  }
});

after(async () => {
  const report = process.env['VMFERRY_CONFORMANCE_REPORT'];
  if (report !== undefined) await writeFile(report, await renderReport(results, new Date()));
});
