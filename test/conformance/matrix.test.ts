/** The part of the conformance matrix that every test run plays; all of it: npm run conformance. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import test, { after } from 'node:test';
import { allCells } from './matrix.ts';
import { cellName, type Result } from './model.ts';
import { renderReport } from './report.ts';
import { runCell } from './runner.ts';

const results: Result[] = [];

for (const cell of allCells().filter(({ smoke }) => smoke)) {
  test(cellName(cell), async (t) => {
    const result = await runCell(cell);
    results.push(result);
    const { outcome, reason } = result;
    if (outcome === 'skip') t.skip(reason);
    else assert.equal(outcome, 'pass', reason);
  });
}

after(async () => {
  const report = process.env['VMFERRY_CONFORMANCE_REPORT'];
  if (report !== undefined) await writeFile(report, await renderReport(results, new Date()));
});
