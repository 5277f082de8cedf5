/**
 * How long a guest waits for a page that it needs in a postcopy. First into QEMU 11.1, which counts it itself (postcopy-blocktime): vmferry as source
 * (the guest's checkpoint, in memory) beside QEMU 11.1 as source (which has loaded the same file). Requested pages on the main channel or on
 * one of their own (postcopy-preempt), pages wanted in order or at random, over links as fast as they go and shaped by the kernel, for both in
 * the same way. Then between vmferrys whose memory has host pages of 4 KiB, 2 MiB and 1 GiB. All in one run.
 *
 *     node dist/bench/fault-latency.js [--work MiB] [--rounds N] [--links unlimited,10,1] [--orders random,sequential]
 *                                      [--host-pages 4K:256M:1,2M:512M:1,1G:3G:10] [--only TEXT]
 *
 * --work: memory that the guest works on, a power of two. --links: Gbit/s. --host-pages: size, memory, link. Shaped links need a network namespace
 * and tc: what is measured over them is left out where these are not to be had.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { findPeer } from '../src/qemu/index.ts';
import type { Ahead, FaultSample } from './fault-figures.ts';
import { FaultGuest, type FaultMove, type Order } from './faults.ts';
import { machineLine, type Spread, spread } from './harness.ts';
import { hugeMove } from './huge-faults.ts';
import { enterOwnNetwork, shape } from './own-network.ts';

const { values } = parseArgs({
  options: {
    work: { type: 'string', default: '256' },
    rounds: { type: 'string', default: '3' },
    links: { type: 'string', default: 'unlimited,10,1' },
    orders: { type: 'string', default: 'random,sequential' },
    'host-pages': { type: 'string', default: '4K:256M:1,2M:512M:1,1G:3G:10' },
    only: { type: 'string', default: '' },
  },
});
const GIGABIT = 1e9;
const KIB = 1024;
const MOVES: readonly FaultMove[] = [false, true].flatMap((preempt) =>
  (['QEMU 11.1', 'vmferry'] as const).map((source) => ({ source, preempt })),
);
/** By how much preempt shortened the wait for a page in the thread that brought it to QEMU, by the size of a host page. */
const SEED_FACTORS: Readonly<Record<string, number>> = { '4K': 18, '2M': 2.1, '1G': 3.2 };

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

const listOf = (text: string): string[] => text.split(',').filter((one) => one !== '');
for (const order of listOf(values.orders) as Order[]) {
  const guest = await FaultGuest.save(peer, folder, Number(values.work), order);
  // Warms up what all of them read.
  for (const move of MOVES.slice(0, 2)) await guest.move(move);
  for (const link of listOf(values.links)) await compareOver(guest, order, link);
}
for (const cell of listOf(values['host-pages'])) await compareHostPages(cell);

async function compareOver(guest: FaultGuest, order: Order, link: string): Promise<void> {
  if (!shapeTo(link)) return;
  const samples = await play(MOVES, nameOf, (move) => guest.move(move), `${order}, ${link}`);
  const speed = link === 'unlimited' ? 'as fast as it goes' : `of ${link} Gbit/s`;
  console.log(`Pages wanted ${order === 'random' ? 'at random' : 'in order'}, link ${speed}:\n`);
  console.log(`${table('source', samples)}\n`);
  const mean = (source: FaultMove['source'], preempt: boolean) => meanOf(samples.get(nameOf({ source, preempt })));
  const [qemuOff, qemuOn] = [mean('QEMU 11.1', false), mean('QEMU 11.1', true)];
  const [off, on] = [mean('vmferry', false), mean('vmferry', true)];
  console.log(
    `Factor from preempt off to on: QEMU ${factor(qemuOff, qemuOn)}, vmferry ${factor(off, on)}; ` +
      `from QEMU without to vmferry with it ${factor(qemuOff, on)}. QEMU to vmferry: ${factor(qemuOff, off)} without, ${factor(qemuOn, on)} with it.\n`,
  );
}

async function compareHostPages(cell: string): Promise<void> {
  const [hostPage = '', ram = '', link = ''] = cell.split(':');
  if (!shapeTo(link)) return;
  const moves = [{ preempt: false }, { preempt: true }];
  const name = ({ preempt }: { preempt: boolean }) => `preempt ${preempt ? 'on' : 'off'}`;
  const samples = await play(moves, name, ({ preempt }) => hugeMove(folder, { hostPage, ram, preempt }), hostPage);
  console.log(
    `vmferry to vmferry, host pages of ${hostPage}, ${ram} in all, link ${link === 'unlimited' ? '' : 'Gbit/s '}${link}:\n`,
  );
  console.log(`${table('pages', samples)}\n`);
  const gained = factor(meanOf(samples.get('preempt off')), meanOf(samples.get('preempt on')));
  console.log(`Factor from preempt off to on: ${gained} (the thread: ${SEED_FACTORS[hostPage] ?? '-'})\n`);
}

/** `-` where one of them was left out. */
function factor(from: number, to: number): string {
  return Number.isFinite(from / to) ? (from / to).toFixed(1) : '-';
}

/** False: it cannot be had here. */
function shapeTo(link: string): boolean {
  const shaped = link !== 'unlimited';
  if (shaped && !canShape) {
    console.log(`${link} Gbit/s: left out, no network namespace can be had here\n`);
    return false;
  }
  if (canShape) shape(shaped ? Number(link) * GIGABIT : undefined);
  return true;
}

/** Every move once a round, in turn, so that a slow minute of the machine hits all of them. */
async function play<M>(
  moves: readonly M[],
  name: (move: M) => string,
  run: (move: M) => Promise<FaultSample>,
  where: string,
): Promise<ReadonlyMap<string, readonly FaultSample[]>> {
  const samples = new Map<string, FaultSample[]>();
  for (let round = 1; round <= rounds; round++) {
    for (const move of moves.filter((move) => name(move).includes(values.only))) {
      const sample = await run(move);
      const { meanUs, faults, blocktimeMs, totalMs } = sample;
      process.stderr.write(
        `${where}, round ${round}, ${name(move)}: ${meanUs.toFixed(0)} us, ${faults} faults, ${blocktimeMs} of ${totalMs.toFixed(0)} ms\n`,
      );
      samples.set(name(move), [...(samples.get(name(move)) ?? []), sample]);
    }
  }
  return samples;
}

function nameOf({ source, preempt }: FaultMove): string {
  return `${source}, preempt ${preempt ? 'on' : 'off'}`;
}

function meanOf(samples: readonly FaultSample[] = []): number {
  return samples.length === 0 ? Number.NaN : spread(samples.map(({ meanUs }) => meanUs)).median;
}

/** Markdown: medians, the mean latency with its range. */
function table(what: string, samples: ReadonlyMap<string, readonly FaultSample[]>): string {
  const head = [
    what,
    'mean us (range)',
    'p50 us',
    'p99 us',
    'faults',
    'postcopy-latency us',
    'blocktime ms',
    'total ms',
    'KiB in the socket, mean / max',
    'KiB before it in user space',
    'KiB of others on their way',
  ];
  const rows = [...samples].map(([name, all]) => {
    const of = (pick: (sample: FaultSample) => number): Spread => spread(all.map(pick));
    const median = (pick: (sample: FaultSample) => number) => of(pick).median.toFixed(0);
    const mean = of(({ meanUs }) => meanUs);
    const kib = (pick: (sample: FaultSample) => Ahead | undefined) =>
      all.some((sample) => pick(sample) === undefined)
        ? '-'
        : `${(of((sample) => pick(sample)!.mean).median / KIB).toFixed(1)} / ${(of((sample) => pick(sample)!.max).max / KIB).toFixed(0)}`;
    return [
      name,
      `${mean.median.toFixed(0)} (${mean.min.toFixed(0)} - ${mean.max.toFixed(0)})`,
      median(({ p50Us }) => p50Us),
      median(({ p99Us }) => p99Us),
      median(({ faults }) => faults),
      median(({ toldMeanUs }) => toldMeanUs),
      median(({ blocktimeMs }) => blocktimeMs),
      median(({ totalMs }) => totalMs),
      kib(({ socketBytes }) => socketBytes),
      kib(({ ahead }) => ahead?.user),
      kib(({ ahead }) => ahead?.onTheWay),
    ];
  });
  return [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}
