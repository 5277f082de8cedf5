/**
 * 1, 2 and 4 multifd channels, RAM that does not compress, nothing that dirties it: vmferry beside QEMU, in the same run, and what raw Node.js TCP
 * streams carry in parallel. Then zstd against none over a link that is shaped to 1 Gbit/s (max-bandwidth), on RAM that compresses to a quarter.
 *
 *     node dist/bench/multifd.js [--ram MiB] [--rounds N] [--channels 1,2,4] [--only PATTERN]
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { findPeer } from '../src/qemu/index.ts';
import { type Contender, compete, machineLine, type Row, spread, table } from './harness.ts';
import {
  type Bench,
  checkpointToQemu,
  type MoveSettings,
  qemuToCheckpoint,
  qemuToFile,
  qemuToQemu,
  vmferryToVmferry,
} from './moves.ts';
import { RandomRam } from './processes.ts';
import { rawTcpRate } from './raw-tcp.ts';

const { values } = parseArgs({
  options: {
    ram: { type: 'string', default: '2048' },
    rounds: { type: 'string', default: '3' },
    channels: { type: 'string', default: '1,2,4' },
    only: { type: 'string', default: '' },
  },
});
const RAM_BYTES = Number(values.ram) * 1024 * 1024;
const GIGABIT_BYTES = 125_000_000;

const found = await findPeer('11.1');
if (found === undefined) throw new Error('QEMU 11.1 is not here: npm run setup -- --peers');
const peer = found;
const folder = mkdtempSync(join(tmpdir(), 'vmferry-bench-'));
const rounds = Number(values.rounds);
const log = (line: string) => process.stderr.write(`${line}\n`);
let serial = 0;

console.log(`${machineLine()}; ${values.ram} MiB; ${rounds} rounds after a warm-up`);
try {
  for (const channels of values.channels.split(',').map(Number)) await compareChannels(channels);
  await compareCompression();
} finally {
  rmSync(folder, { recursive: true, force: true });
}

async function compareChannels(channels: number): Promise<void> {
  const settings: MoveSettings = { capabilities: ['multifd'], parameters: { 'multifd-channels': channels } };
  await withBench(RAM_BYTES, 1, async (bench) => {
    const file = join(folder, 'saved');
    const base = `QEMU to QEMU, ${channels}`;
    const contenders: Contender[] = [
      { name: base, run: () => qemuToQemu(bench, settings) },
      { name: `vmferry to vmferry, ${channels}`, run: () => vmferryToVmferry(bench, settings) },
      { name: `QEMU to vmferry checkpoint, ${channels}`, run: () => qemuToCheckpoint(bench, settings, file) },
      { name: `QEMU to its own mapped-ram file, ${channels}`, run: () => qemuToFile(bench, settings) },
      { name: `vmferry checkpoint to QEMU, ${channels}`, run: () => checkpointToQemu(bench, file, settings) },
    ];
    const rows = await compete(chosen(contenders), rounds, log);
    const raw = [];
    for (let i = 0; i < rounds; i++) raw.push(await parallelRawRate(channels));
    const { median, min, max } = spread(raw);
    print(rows, base);
    console.log(
      `raw Node.js TCP, ${channels} streams: ${median.toFixed(2)} GB/s (${min.toFixed(2)} - ${max.toFixed(2)})`,
    );
    for (const row of rows)
      console.log(`${row.name}: ${((100 * row.gbPerSecond.median) / median).toFixed(0)} % of raw`);
  });
}

async function compareCompression(): Promise<void> {
  await withBench(RAM_BYTES / 2, 4, async (bench) => {
    const file = join(folder, 'saved');
    const shaped = (method: string): MoveSettings => ({
      capabilities: ['multifd'],
      parameters: { 'multifd-channels': 2, 'multifd-compression': method, 'max-bandwidth': GIGABIT_BYTES },
    });
    const methods = ['none', 'zlib', 'zstd'];
    const contenders = methods.flatMap((method): Contender[] => [
      { name: `QEMU to QEMU, ${method}`, run: () => perGuestByte(qemuToQemu(bench, shaped(method))) },
      { name: `QEMU to vmferry, ${method}`, run: () => perGuestByte(qemuToCheckpoint(bench, shaped(method), file)) },
      { name: `vmferry to QEMU, ${method}`, run: () => perGuestByte(checkpointToQemu(bench, file, shaped(method))) },
    ]);
    console.log('\n2 channels over 1 Gbit/s, RAM that compresses to a quarter; GB/s are those of guest memory:');
    print(await compete(chosen(contenders), 1, log), 'QEMU to QEMU, none');
  });
}

/** What counts with compression is the guest's memory, not the bytes of the link. */
async function perGuestByte(sample: ReturnType<typeof qemuToQemu>) {
  return { ...(await sample), bytes: RAM_BYTES / 2 };
}

async function parallelRawRate(streams: number): Promise<number> {
  const rates = await Promise.all(
    Array.from({ length: streams }, () => rawTcpRate({ bytes: Math.floor(RAM_BYTES / streams) })),
  );
  return rates.reduce((sum, rate) => sum + rate, 0);
}

async function withBench(bytes: number, copies: 1 | 4, body: (bench: Bench) => Promise<void>): Promise<void> {
  const ram = new RandomRam(bytes, copies);
  try {
    await body({ peer, ram, path: (name) => join(folder, `${name}-${serial++}`) });
  } finally {
    ram.remove();
  }
}

function chosen(contenders: readonly Contender[]): Contender[] {
  return contenders.filter(({ name }) => new RegExp(values.only).test(name));
}

function print(rows: readonly Row[], base: string): void {
  console.log(`\n${table(rows, base)}`);
}
