/**
 * Plays the matrix and writes what came of it.
 *
 *   node dist/test/conformance/run.js [--only TEXT]... [--smoke] [--list] [--jobs N] [--json FILE] [--report FILE]
 *
 * --only keeps the cells whose name contains every TEXT; N cells are played at a time; --report writes docs/conformance.md. Exit status 1 if a cell failed.
 */
import { writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { runDeviceCell } from './device-cell.ts';
import { deviceCellName, deviceCells } from './devices.ts';
import { allCells } from './matrix.ts';
import { cellName, type Result } from './model.ts';
import { renderReport } from './report.ts';
import { runCell } from './runner.ts';

const { values } = parseArgs({
  options: {
    only: { type: 'string', multiple: true, default: [] },
    smoke: { type: 'boolean', default: false },
    list: { type: 'boolean', default: false },
    jobs: { type: 'string', default: '1' },
    json: { type: 'string' },
    report: { type: 'string' },
  },
});

for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => process.exit(1));

interface Playable {
  readonly name: string;
  readonly smoke: boolean;
  play(): Promise<Result>;
}

const playable: readonly Playable[] = [
  ...allCells().map((cell) => ({ name: cellName(cell), smoke: cell.smoke, play: () => runCell(cell) })),
  ...deviceCells().map((cell) => ({ name: deviceCellName(cell), smoke: cell.smoke, play: () => runDeviceCell(cell) })),
];
const cells = playable.filter(
  ({ name, smoke }) => values.only.every((text) => name.includes(text)) && (!values.smoke || smoke),
);
if (values.list) {
  for (const { name } of cells) console.log(name);
  console.log(`${cells.length} cells`);
} else {
  const results: Result[] = [];
  const waiting = cells.entries();
  const work = async () => {
    for (const [index, cell] of waiting) {
      const result = await cell.play();
      results[index] = result;
      const reason = result.reason === undefined ? '' : `: ${result.reason}`;
      console.log(`${index + 1}/${cells.length} ${result.outcome} ${result.cell} ${result.ms} ms${reason}`);
    }
  };
  await Promise.all(Array.from({ length: Math.max(1, Number(values.jobs)) }, work));
  if (values.json !== undefined) await writeFile(values.json, `${JSON.stringify(results, null, 1)}\n`);
  if (values.report !== undefined) await writeFile(values.report, await renderReport(results, new Date()));
  const failed = results.filter(({ outcome }) => outcome === 'fail').length;
  const skipped = results.filter(({ outcome }) => outcome === 'skip').length;
  console.log(`conformance: ${results.length - failed - skipped} passed, ${failed} failed, ${skipped} skipped`);
  process.exitCode = failed > 0 ? 1 : 0;
}
