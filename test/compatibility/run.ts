/**
 * Plays the matrix of machine types and writes docs/compatibility.md.
 *
 *   node dist/test/compatibility/run.js [--only TEXT]... [--jobs N] [--report FILE]
 *
 * Exit status 1 if a cell failed.
 */
import { writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { cellName, type Result } from '../conformance/model.ts';
import { runCell } from '../conformance/runner.ts';
import { machineCells } from './machine-types.ts';
import { renderCompatibility } from './report.ts';

const { values } = parseArgs({
  options: {
    only: { type: 'string', multiple: true, default: [] },
    jobs: { type: 'string', default: '1' },
    report: { type: 'string' },
  },
});

for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => process.exit(1));

const cells = machineCells().filter((cell) => values.only.every((text) => cellName(cell).includes(text)));
const results: Result[] = [];
const waiting = cells.entries();
const work = async () => {
  for (const [index, cell] of waiting) {
    const result = await runCell(cell);
    results[index] = result;
    const reason = result.reason === undefined ? '' : `: ${result.reason}`;
    console.log(`${index + 1}/${cells.length} ${result.outcome} ${result.cell} ${result.ms} ms${reason}`);
  }
};
await Promise.all(Array.from({ length: Math.max(1, Number(values.jobs)) }, work));
if (values.report !== undefined) await writeFile(values.report, await renderCompatibility(results, new Date()));
const failed = results.filter(({ outcome }) => outcome === 'fail').length;
console.log(`compatibility: ${results.length - failed} of ${results.length} cells passed or were skipped`);
process.exitCode = failed > 0 ? 1 : 0;
