/**
 * Plays the matrix and writes what came of it.
 *
 *   node dist/test/conformance/run.js [--only TEXT]... [--smoke] [--list] [--jobs N] [--json FILE] [--rest] [--report FILE]
 *
 * --only keeps the cells whose name contains every TEXT; N cells are played at a time. Each result goes into FILE of --json at once, beside those of
 * earlier runs; --rest leaves out cells that have passed by that file. --report writes docs/conformance.md, of all that is in that file. Exit status 1
 * if a cell failed.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
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
    rest: { type: 'boolean', default: false },
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
/** By cell. */
const known = new Map<string, Result>();
if (values.json !== undefined && existsSync(values.json)) {
  const earlier = JSON.parse(readFileSync(values.json, 'utf8')) as Result[];
  for (const result of earlier) known.set(result.cell, result);
}
/** Of this run and, by cell, of earlier ones, as far as the matrix still has them; in its order. */
const allResults = (): Result[] => playable.flatMap(({ name }) => known.get(name) ?? []);
const cells = playable.filter(
  ({ name, smoke }) =>
    values.only.every((text) => name.includes(text)) &&
    (!values.smoke || smoke) &&
    !(values.rest && known.get(name)?.outcome === 'pass'),
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
      known.set(cell.name, result);
      if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(allResults(), null, 1)}\n`);
      const reason = result.reason === undefined ? '' : `: ${result.reason}`;
      console.log(`${index + 1}/${cells.length} ${result.outcome} ${result.cell} ${result.ms} ms${reason}`);
    }
  };
  await Promise.all(Array.from({ length: Math.max(1, Number(values.jobs)) }, work));
  if (values.report !== undefined) await writeFile(values.report, await renderReport(allResults(), new Date()));
  const failed = results.filter(({ outcome }) => outcome === 'fail').length;
  const skipped = results.filter(({ outcome }) => outcome === 'skip').length;
  console.log(`conformance: ${results.length - failed - skipped} passed, ${failed} failed, ${skipped} skipped`);
  process.exitCode = failed > 0 ? 1 : 0;
}
