/**
 * Plays the mismatch table and writes docs/mismatches.md.
 *
 *   node dist/test/compatibility/mismatch/run.js [--only TEXT]... [--list] [--jobs N] [--json FILE] [--go-on] [--report FILE]
 *
 * --only keeps the cells whose name contains every TEXT; N cells are played at a time; --json keeps what has come of each; with --go-on a cell that FILE has
 * already, and not as a failure, is not played again. Exit status 1 if a cell failed.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { chosen } from './columns.ts';
import { cellName, type Result } from './model.ts';
import { Player } from './play.ts';
import { renderMismatches } from './report.ts';

const { values } = parseArgs({
  options: {
    only: { type: 'string', multiple: true, default: [] },
    list: { type: 'boolean', default: false },
    jobs: { type: 'string', default: '1' },
    json: { type: 'string' },
    'go-on': { type: 'boolean', default: false },
    report: { type: 'string' },
  },
});

for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => process.exit(1));

/** Cells between two writes of the file. */
const KEPT_EVERY = 20;

const cells = chosen(values.only);
if (values.list) for (const cell of cells) console.log(cellName(cell));
else await play();

/** Of an earlier go, but for what failed in it. */
async function played(): Promise<ReadonlyMap<string, Result>> {
  const kept = JSON.parse(await readFile(values.json ?? '', 'utf8').catch(() => '[]')) as readonly Result[];
  return new Map(kept.filter(({ outcome }) => outcome !== 'fail').map((result) => [result.cell, result]));
}

async function play(): Promise<void> {
  const results: Result[] = [];
  const known = values['go-on'] ? await played() : new Map<string, Result>();
  const keep = async () => {
    if (values.json !== undefined)
      await writeFile(values.json, `${JSON.stringify(results.filter(Boolean), null, 1)}\n`);
  };
  const player = new Player();
  const waiting = cells.entries();
  const work = async () => {
    for (const [index, cell] of waiting) {
      const before = known.get(cellName(cell));
      const result = before ?? (await player.play(cell));
      results[index] = result;
      if (before !== undefined) continue;
      const words = result.words === '' ? '' : `: ${result.words}`;
      console.log(`${index + 1}/${cells.length} ${result.outcome} ${result.cell} ${result.ms} ms${words}`);
      if (index % KEPT_EVERY === 0) await keep();
    }
  };
  await Promise.all(Array.from({ length: Math.max(1, Number(values.jobs)) }, work));
  await player.close();
  await keep();
  if (values.report !== undefined) await writeFile(values.report, await renderMismatches(results, new Date()));
  const failed = results.filter(({ outcome }) => outcome === 'fail').length;
  console.log(`mismatches: ${results.length - failed} of ${results.length} cells are as they must be or were skipped`);
  process.exitCode = failed > 0 ? 1 : 0;
}
