/**
 * Downtime of a machine with VFs of the kind that the project's first thread measures (about 100 MiB of state, 70 ms to load the configuration), 1 to 8
 * of them, in three ways: everything over one channel, one device after the other, as QEMU does without multifd; state over channels and
 * configurations one at a time; and all in parallel. Then the VF that takes 1480 ms for its resources, with and without switchover-ack. Every contender
 * once a round, in turn; the first round warms up, and in it what has arrived is verified.
 *
 *     node dist/bench/downtime.js [--rounds N] [--vfs 1,2,4,8] [--channels N] [--only TEXT]
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type DeviceInfos, deviceRecordsOf } from '../src/cli/run/device-commands.ts';
import { QmpClient } from '../src/qemu/index.ts';
import { capabilityDeclaration } from '../src/settings/index.ts';
import { DOWNTIME_PARTS, type DowntimePart, type Timeline, timelineOf } from '../src/vfio/index.ts';
import { cpuSeconds, machineLine, type Spread, spread } from './harness.ts';
import { migrated, VmferryProcess } from './processes.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    vfs: { type: 'string', default: '1,2,4,8' },
    channels: { type: 'string', default: '2' },
    only: { type: 'string', default: '' },
  },
});
const rounds = Number(values.rounds);
const counts = values.vfs.split(',').map(Number);

type Way = 'one channel, one after the other' | 'channels, configurations one by one' | 'channels, all in parallel';
const WAYS: readonly Way[] = [
  'one channel, one after the other',
  'channels, configurations one by one',
  'channels, all in parallel',
];
/** Downtime that the thread reports for 1, 2 and 4 VFs, ms: without and with its patches, which load configurations one by one. */
const SEED: Readonly<Record<Way, Readonly<Record<number, number>>>> = {
  'one channel, one after the other': { 1: 283, 2: 614, 4: 1783 },
  'channels, configurations one by one': { 1: 274, 2: 434, 4: 1068 },
  'channels, all in parallel': { 1: 274, 2: 434, 4: 1068 },
};

interface Cell {
  readonly name: string;
  readonly vf: string;
  readonly capabilities: readonly string[];
  readonly parameters: Readonly<Record<string, number | string>>;
}

interface Sample {
  readonly timeline: Timeline;
  /** Of both processes, from the beginning of the migration to its end. */
  readonly cpuSeconds: number;
}

const folder = mkdtempSync(join(tmpdir(), 'vmferry-bench-'));
const samples = new Map<string, Sample[]>();
let serial = 0;

try {
  await main();
} finally {
  rmSync(folder, { recursive: true, force: true });
}

async function main(): Promise<void> {
  const all = [...counts.flatMap((count) => WAYS.map((way) => cellOf(way, count))), ...allocatingCells()];
  const cells = all.filter(({ name }) => name.includes(values.only));
  for (let round = 0; round <= rounds; round++) {
    for (const cell of cells) {
      const sample = await measured(cell, round === 0);
      const { downtimeMs } = sample.timeline;
      const cpu = sample.cpuSeconds.toFixed(2);
      process.stderr.write(
        `${round === 0 ? 'warm-up' : `round ${round}`}: ${cell.name}: ${ms(downtimeMs)} ms, ${cpu} s of CPU\n`,
      );
      if (round > 0) samples.set(cell.name, [...(samples.get(cell.name) ?? []), sample]);
    }
  }
  console.log(`${machineLine()}; ${rounds} rounds after a warm-up, ${values.channels} channels\n`);
  printScaling();
  printParts(cells);
}

function nameOf(way: Way, count: number): string {
  return `${count} VF${count === 1 ? '' : 's'}, ${way}`;
}

/** Configurations that are loaded in parallel are those of devices that can be: they need no machine lock. */
function cellOf(way: Way, count: number): Cell {
  const parallel = way === 'channels, all in parallel';
  const multifd = way !== 'one channel, one after the other';
  return {
    name: nameOf(way, count),
    vf: `${count},preset=vf-100m${parallel ? ',config-lock=off' : ''}`,
    capabilities: multifd ? ['multifd'] : [],
    parameters: {
      'x-device-config-load': parallel ? 'parallel' : 'serial',
      ...(multifd ? { 'multifd-channels': Number(values.channels) } : {}),
    },
  };
}

/** The first MiB tells the destination what it needs. Without the ack the guest is stopped as soon as the limits allow it, which is at once. */
function allocatingCells(): Cell[] {
  const vf = '1,preset=vf-300m,initial-size=1M';
  const parameters = { 'multifd-channels': Number(values.channels) };
  const without: Cell = { name: 'VF that allocates, no ack', vf, capabilities: ['multifd'], parameters };
  if (capabilityDeclaration('switchover-ack').support !== 'yes') return [without];
  return [
    without,
    {
      ...without,
      name: 'VF that allocates, switchover-ack',
      capabilities: ['multifd', 'return-path', 'switchover-ack'],
    },
  ];
}

/** One migration of a machine whose guest does nothing: its memory goes before, so that channels are on their way when the guest is stopped. */
async function measured(cell: Cell, verify: boolean): Promise<Sample> {
  const machine = ['--ram', '256M', '--fill', '1', '--vcpus', '1', '--pattern', 'idle', '--vf', cell.vf];
  const sockets = ['a', 'b'].map((side) => join(folder, `${side}-${serial}.sock`));
  serial++;
  const [from, to] = [
    new VmferryProcess(['run', '--qmp', sockets[0]!, ...machine]),
    new VmferryProcess(['run', '--qmp', sockets[1]!, '--incoming', 'defer', ...machine]),
  ];
  try {
    await Promise.all([from.line('ready'), to.line('ready')]);
    const [source, destination] = await Promise.all(sockets.map((path) => QmpClient.connect(path)));
    const capabilities = cell.capabilities.map((capability) => ({ capability, state: true }));
    for (const qmp of [source!, destination!]) {
      await qmp.executeAny('migrate-set-capabilities', { capabilities });
      await qmp.executeAny('migrate-set-parameters', {
        'max-bandwidth': 0,
        'downtime-limit': 60_000,
        ...cell.parameters,
      });
    }
    await destination!.executeAny('migrate-incoming', { uri: 'tcp:127.0.0.1:0' });
    const { 'socket-address': address } = (await destination!.executeAny('query-migrate')) as {
      'socket-address': { port: string }[];
    };
    const before = cpuSeconds(from.pid) + cpuSeconds(to.pid);
    await source!.executeAny('migrate', { uri: `tcp:127.0.0.1:${address[0]!.port}` });
    await migrated(source!);
    const cpu = cpuSeconds(from.pid) + cpuSeconds(to.pid) - before;
    const timeline = timelineOf(await records(source!), await records(destination!));
    if (timeline === undefined) throw new Error(`${cell.name}: no guest was stopped and started`);
    if (verify) await expectWhole(destination!, cell.name);
    source!.close();
    destination!.close();
    return { timeline, cpuSeconds: cpu };
  } finally {
    await Promise.all([from.stop(), to.stop()]);
  }
}

async function records(qmp: QmpClient) {
  return deviceRecordsOf((await qmp.executeAny('x-query-devices')) as DeviceInfos);
}

async function expectWhole(qmp: QmpClient, name: string): Promise<void> {
  const verdict = await qmp.executeAny('x-workload-verify', undefined, { timeoutMs: 120_000 });
  const { verified, details } = verdict as { readonly verified: boolean; readonly details: readonly string[] };
  if (!verified) throw new Error(`${name}: what has arrived is wrong: ${details.join('; ')}`);
}

/** Downtime by number of VFs, its ratio to one VF, and to the first way with as many VFs; the thread's own ratios beside them. */
function printScaling(): void {
  const rows = WAYS.flatMap((way) =>
    counts.flatMap((count) => {
      const found = downtimeOf(nameOf(way, count));
      if (found === undefined) return [];
      const one = downtimeOf(nameOf(way, 1))?.median;
      const plain = downtimeOf(nameOf(WAYS[0]!, count))?.median;
      const seed = SEED[way];
      return [
        [
          way,
          String(count),
          shown(found),
          ratio(found.median, one),
          ratio(seed[count], seed[1]),
          ratio(found.median, plain),
          ratio(seed[count], SEED[WAYS[0]!][count]),
        ],
      ];
    }),
  );
  const head = ['way', 'VFs', 'downtime, ms', 'to 1 VF', 'the thread', 'to one channel', 'the thread'];
  if (rows.length > 0) console.log(`${markdown(head, rows)}\n`);
}

function printParts(cells: readonly Cell[]): void {
  const parts = Object.keys(DOWNTIME_PARTS) as DowntimePart[];
  const rows = cells.map(({ name }) => {
    const taken = samples.get(name) ?? [];
    const part = (one: DowntimePart) => ms(spread(taken.map(({ timeline }) => timeline.parts[one])).median);
    const cpu = spread(taken.map((sample) => sample.cpuSeconds)).median;
    return [name, shown(downtimeOf(name)!), ...parts.map(part), cpu.toFixed(2)];
  });
  console.log(markdown(['where it goes, ms (medians)', 'downtime', ...parts, 'CPU s, both sides'], rows));
}

function downtimeOf(name: string): Spread | undefined {
  const taken = samples.get(name);
  return taken && spread(taken.map(({ timeline }) => timeline.downtimeMs));
}

function shown({ median, min, max }: Spread): string {
  return `${ms(median)} (${ms(min)} - ${ms(max)})`;
}

function ms(value: number): string {
  return value.toFixed(0);
}

function ratio(value: number | undefined, to: number | undefined): string {
  return value === undefined || to === undefined ? '-' : (value / to).toFixed(2);
}

function markdown(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}
