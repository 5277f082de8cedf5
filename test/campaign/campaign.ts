/**
 * A campaign: many cases of one kind, each with parameters drawn from a seed. Any case can be run again by its exact parameters, which a
 * failure prints; a failure does not end the campaign, the next case gets a fresh rig.
 */
import { explain } from '../../src/base/index.ts';
import { table } from '../../src/cli/render/table.ts';
import { Random } from './random.ts';

export type Row = Readonly<Record<string, string>>;

/** What the cases of a campaign share: machines, processes, folders. */
export interface Rig<P> {
  parameters(random: Random, index: number): P | Promise<P>;
  /** Runs one case and judges it: throws what is wrong. Undefined: it did not come about (a cut that was not reached) and does not count. */
  run(parameters: P): Promise<Row | undefined>;
  /** Never throws. */
  dispose(): Promise<void>;
}

export interface Campaign<P> {
  readonly name: string;
  /** Columns by which the report counts. */
  readonly groups: readonly string[];
  open(seed: number): Promise<Rig<P>>;
}

export interface CampaignRun<P> {
  readonly seed: number;
  readonly count: number;
  /** Only this case, as a failure has printed it. */
  readonly parameters?: P;
  readonly log?: (line: string) => void;
}

export interface Failure {
  readonly index: number;
  readonly parameters: unknown;
  readonly error: Error;
}

export interface Report {
  readonly name: string;
  readonly seed: number;
  readonly rows: readonly Row[];
  readonly failures: readonly Failure[];
  /** Cases drawn that did not come about. */
  readonly missed: number;
  readonly groups: readonly string[];
}

/** Draws that do not come about are made up for, up to this many times the count. */
const DRAWS_MAX = 3;
/** After so many failures something is broken for good. */
const FAILURES_MAX = 10;

export async function runCampaign<P>(campaign: Campaign<P>, run: CampaignRun<P>): Promise<Report> {
  const { seed, count, log = () => {} } = run;
  const rows: Row[] = [];
  const failures: Failure[] = [];
  let missed = 0;
  let rig: Rig<P> | undefined;
  try {
    for (let index = 0; rows.length + failures.length < count && index < count * DRAWS_MAX; index++) {
      rig ??= await campaign.open(seed);
      const parameters = run.parameters ?? (await rig.parameters(new Random(seed, index), index));
      const startedMs = performance.now();
      try {
        const row = await rig.run(parameters);
        if (row === undefined) missed++;
        else rows.push(row);
        const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
        log(`${index} ${row === undefined ? 'not reached' : Object.values(row).join(' | ')} (${seconds} s)`);
      } catch (thrown) {
        const error = thrown instanceof Error ? thrown : new Error(String(thrown));
        failures.push({ index, parameters, error });
        log(`${index} FAILED ${explain(error)}\n  again: --seed ${seed} --parameters '${JSON.stringify(parameters)}'`);
        await rig.dispose();
        rig = undefined;
        if (failures.length >= FAILURES_MAX) break;
      }
      if (run.parameters !== undefined) break;
    }
  } finally {
    await rig?.dispose();
  }
  return { name: campaign.name, seed, rows, failures, missed, groups: campaign.groups };
}

/** How often what came out, and what failed. */
export function renderReport({ name, seed, rows, failures, missed, groups }: Report): string {
  const counts = new Map<string, number>();
  for (const row of rows) {
    const key = JSON.stringify(groups.map((group) => row[group] ?? ''));
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  const lines = [...counts]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, count]) => [...(JSON.parse(key) as string[]), String(count)]);
  const failed = failures.map(
    ({ index, parameters, error }) =>
      `  case ${index}: ${explain(error)}\n    --seed ${seed} --parameters '${JSON.stringify(parameters)}'\n`,
  );
  const verdict = failures.length === 0 ? 'all good' : `${failures.length} FAILED`;
  return (
    `${name}, seed ${seed}: ${rows.length + failures.length} cases, ${verdict}` +
    `${missed === 0 ? '' : ` (${missed} more did not come about)`}\n${table([...groups, 'cases'], lines)}${failed.join('')}`
  );
}

/** For the smoke runs: throws what a failed campaign has to say. */
export async function smoke<P>(campaign: Campaign<P>, seed: number, count: number): Promise<Report> {
  const report = await runCampaign(campaign, { seed, count });
  if (report.failures.length > 0) throw new Error(renderReport(report), { cause: report.failures[0]!.error });
  if (report.rows.length < count) throw new Error(`only ${report.rows.length} of ${count} cases came about`);
  return report;
}
