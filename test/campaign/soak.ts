/**
 * One machine moves live between processes, again and again; every page is verified after every turn, and the downtime - by the engine's clock
 * and by the guest's own - stays within the limit.
 *
 *   node dist/test/campaign/soak.js [--turns 20] [--ram 4G] [--dirty-rate 300M] [--downtime-limit 300] [--seed N]
 */
import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { explain } from '../../src/base/index.ts';
import { runDemo, type Trip } from '../../src/cli/demo/demo.ts';
import { formatBytes, formatDuration, formatRate } from '../../src/cli/render/quantity.ts';
import { table } from '../../src/cli/render/table.ts';

export interface Soak {
  readonly turns: number;
  /** As `vmferry run` takes them. */
  readonly ram: string;
  readonly dirtyRate: string;
  readonly downtimeLimitMs: number;
  readonly seed: number;
}

/** The limit is a goal of the engine, not a promise; this much more is still good, ms. */
const DOWNTIME_SLACK_MS = 100;

/** Ends with the first turn that goes wrong. */
export async function soak(options: Soak, log: (line: string) => void, signal: AbortSignal): Promise<readonly Trip[]> {
  const { ram, dirtyRate, seed, turns, downtimeLimitMs } = options;
  return await runDemo({
    machine: [`--ram=${ram}`, `--dirty-rate=${dirtyRate}`, `--seed=${seed}`],
    rounds: turns,
    settings: { capabilities: [], parameters: { 'max-bandwidth': 0, 'downtime-limit': downtimeLimitMs } },
    signal,
    progress: () => {},
    moved: (trip, number) => log(`${number} ${cells(trip).join(' | ')}`),
  });
}

/** Throws what was wrong with any of the turns. */
export function judgeSoak({ turns, downtimeLimitMs }: Soak, trips: readonly Trip[]): void {
  const limitMs = downtimeLimitMs + DOWNTIME_SLACK_MS;
  for (const [index, { outcome, verification, guestDowntimeMs }] of trips.entries()) {
    const turn = `turn ${index + 1}`;
    assert.equal(outcome.status, 'completed', `${turn}: ${explain(outcome.error)}`);
    assert.equal(verification?.verified, true, `${turn}: ${JSON.stringify(verification)}`);
    assert(outcome.downtimeMs !== undefined && guestDowntimeMs !== undefined, `${turn}: no downtime`);
    assert(outcome.downtimeMs <= limitMs, `${turn}: downtime of ${outcome.downtimeMs} ms, ${limitMs} allowed`);
    assert(guestDowntimeMs <= limitMs, `${turn}: the guest stood ${guestDowntimeMs} ms, ${limitMs} allowed`);
  }
  assert.equal(trips.length, turns);
}

const HEAD = [
  'turn',
  'total',
  'rounds',
  'throughput',
  'dirtied',
  'sent stopped',
  'downtime',
  'guest saw',
  'pages verified',
];

export function soakTable(trips: readonly Trip[]): string {
  return table(
    HEAD,
    trips.map((trip, index) => [String(index + 1), ...cells(trip)]),
  );
}

function cells({ outcome, guestDowntimeMs, verification }: Trip): string[] {
  const { ram, totalTimeMs = 0, downtimeMs } = outcome;
  return [
    formatDuration(totalTimeMs),
    String(ram?.['dirty-sync-count'] ?? '-'),
    formatRate(((ram?.transferred ?? 0) * 1000) / Math.max(totalTimeMs, 1)),
    formatRate((ram?.['dirty-pages-rate'] ?? 0) * 4096),
    formatBytes(ram?.['downtime-bytes'] ?? 0),
    downtimeMs === undefined ? outcome.status : `${Math.round(downtimeMs)} ms`,
    guestDowntimeMs === undefined ? '-' : `${Math.round(guestDowntimeMs)} ms`,
    verification?.verified === true ? String(verification['pages-checked']) : 'WRONG',
  ];
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      turns: { type: 'string', default: '20' },
      ram: { type: 'string', default: '4G' },
      'dirty-rate': { type: 'string', default: '300M' },
      'downtime-limit': { type: 'string', default: '300' },
      seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    },
  });
  const options: Soak = {
    turns: Number(values.turns),
    ram: values.ram,
    dirtyRate: values['dirty-rate'],
    downtimeLimitMs: Number(values['downtime-limit']),
    seed: Number(values.seed),
  };
  console.log(`soak: ${JSON.stringify(options)}`);
  const stop = new AbortController();
  process.once('SIGINT', () => stop.abort(new Error('interrupted')));
  const trips = await soak(options, (line) => console.log(line), stop.signal);
  console.log(soakTable(trips));
  judgeSoak(options, trips);
  console.log(`soak: ok: ${trips.length} turns, all pages verified, downtime within the limit`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
