/**
 * How long a guest waits for a page that it needs in a postcopy into QEMU 11.1, which counts it itself (postcopy-blocktime): vmferry as source
 * (the guest's checkpoint, in memory) beside QEMU 11.1 as source (which has loaded the same file), in the same run. Requested pages on the
 * main channel or on one of their own (postcopy-preempt), pages wanted in order or at random, over links as fast as they go and shaped by the
 * kernel, for both in the same way.
 *
 *     node dist/bench/fault-latency.js [--work MiB] [--rounds N] [--links unlimited,10,1] [--orders random,sequential] [--only TEXT]
 *
 * --work: memory that the guest works on, a power of two. --links: Gbit/s. Shaped ones need a network namespace and tc: they are left out where
 * these are not to be had.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { findPeer } from '../src/qemu/index.ts';
import { FaultGuest, type FaultMove, type FaultSample, type Order } from './faults.ts';
import { machineLine, type Spread, spread } from './harness.ts';
import { enterOwnNetwork, shape } from './own-network.ts';

const { values } = parseArgs({
  options: {
    work: { type: 'string', default: '128' },
    rounds: { type: 'string', default: '3' },
    links: { type: 'string', default: 'unlimited,10,1' },
    orders: { type: 'string', default: 'random,sequential' },
    only: { type: 'string', default: '' },
  },
});
const GIGABIT = 1e9;
const MOVES: readonly FaultMove[] = [false, true].flatMap((preempt) =>
  (['QEMU 11.1', 'vmferry'] as const).map((source) => ({ source, preempt })),
);

const canShape = await enterOwnNetwork();
const found = await findPeer('11.1');
if (found === undefined) throw new Error('QEMU 11.1 is not here: npm run setup -- --peers');
const peer = found;
const rounds = Number(values.rounds);
// In memory: a disk is no part of what is compared.
const folder = mkdtempSync('/dev/shm/vmferry-bench-');
// Also when it is interrupted; QEMUs end then, too.
process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130));
console.log(`${machineLine()}; the guest works on ${values.work} MiB; ${rounds} rounds after a warm-up\n`);
for (const order of values.orders.split(',') as Order[]) {
  const guest = await FaultGuest.save(peer, folder, Number(values.work), order);
  for (const link of values.links.split(',')) await compareOver(guest, order, link);
}

async function compareOver(guest: FaultGuest, order: Order, link: string): Promise<void> {
  const shaped = link !== 'unlimited';
  if (shaped && !canShape) return console.log(`${link} Gbit/s: left out, no network namespace can be had here\n`);
  if (canShape) shape(shaped ? Number(link) * GIGABIT : undefined);
  const samples = new Map<string, FaultSample[]>();
  const moves = MOVES.filter((move) => nameOf(move).includes(values.only));
  for (let round = 0; round <= rounds; round++) {
    for (const move of moves) {
      const sample = await guest.move(move);
      const name = nameOf(move);
      const { meanUs, faults } = sample;
      process.stderr.write(`${order}, ${link}, round ${round}, ${name}: ${meanUs.toFixed(0)} us, ${faults} faults\n`);
      // The first warms up.
      if (round > 0) samples.set(name, [...(samples.get(name) ?? []), sample]);
    }
  }
  console.log(
    `Pages wanted ${order === 'random' ? 'at random' : 'in order'}, link ${shaped ? `of ${link} Gbit/s` : 'as fast as it goes'}:\n`,
  );
  console.log(`${table(moves, samples)}\n`);
}

function nameOf({ source, preempt }: FaultMove): string {
  return `${source}, preempt ${preempt ? 'on' : 'off'}`;
}

/** Markdown: medians, the mean latency with its range. */
function table(moves: readonly FaultMove[], samples: ReadonlyMap<string, readonly FaultSample[]>): string {
  const head = [
    'source',
    'mean us (range)',
    'p50 us',
    'p99 us',
    'faults',
    'blocktime ms',
    'total ms',
    'KiB in the socket, mean / max',
    'KiB before it, mean / max',
  ];
  const rows = moves.map((move) => {
    const all = samples.get(nameOf(move)) ?? [];
    const of = (pick: (sample: FaultSample) => number): Spread => spread(all.map(pick));
    const mean = of(({ meanUs }) => meanUs);
    const kib = (pick: (sample: FaultSample) => { readonly mean: number; readonly max: number }) =>
      `${(of((sample) => pick(sample).mean).median / 1024).toFixed(1)} / ${(of((sample) => pick(sample).max).max / 1024).toFixed(0)}`;
    return [
      nameOf(move),
      `${mean.median.toFixed(0)} (${mean.min.toFixed(0)} - ${mean.max.toFixed(0)})`,
      of(({ p50Us }) => p50Us).median.toFixed(0),
      of(({ p99Us }) => p99Us).median.toFixed(0),
      of(({ faults }) => faults).median.toFixed(0),
      of(({ blocktimeMs }) => blocktimeMs).median.toFixed(0),
      of(({ totalMs }) => totalMs).median.toFixed(0),
      kib(({ socketBytes }) => socketBytes),
      all.every(({ userBytes }) => userBytes !== undefined) ? kib(({ userBytes }) => userBytes!) : '-',
    ];
  });
  return [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}
