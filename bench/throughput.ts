/**
 * One channel, RAM that does not compress, nothing that dirties it: how fast does it move, at what cost, beside QEMU to QEMU and a raw
 * Node.js TCP stream in the same run?
 *
 *     node dist/bench/throughput.js [--ram MiB] [--rounds N]
 *
 * Destinations have their memory beforehand (QEMU: prealloc=on, vmferry: --prealloc), as otherwise the page faults of this machine are
 * what is measured.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { findPeer } from '../src/qemu/index.ts';
import { type Contender, compete, machineLine, table } from './harness.ts';
import { type Bench, qemuToCheckpoint, qemuToFile, qemuToQemu, vmferryToVmferry } from './moves.ts';
import { RandomRam } from './processes.ts';
import { rawTcpRate } from './raw-tcp.ts';

const { values } = parseArgs({
  options: {
    ram: { type: 'string', default: '2048' },
    rounds: { type: 'string', default: '5' },
    only: { type: 'string' },
  },
});
const RAM_BYTES = Number(values.ram) * 1024 * 1024;

const folder = mkdtempSync(join(tmpdir(), 'vmferry-bench-'));
const peer = await findPeer('11.1');
if (peer === undefined) throw new Error('QEMU 11.1 is not here: npm run setup -- --peers');
const ram = new RandomRam(RAM_BYTES);
let serial = 0;
const bench: Bench = { peer, ram, path: (name) => join(folder, `${name}-${serial++}`) };

const QEMU_TO_QEMU = 'QEMU 11.1 to QEMU 11.1';
const contenders: Contender[] = [
  { name: QEMU_TO_QEMU, run: () => qemuToQemu(bench, {}) },
  { name: 'vmferry to vmferry', run: () => vmferryToVmferry(bench, {}) },
  { name: 'QEMU 11.1 to vmferry checkpoint', run: () => qemuToCheckpoint(bench, {}) },
  { name: 'QEMU 11.1 to its own mapped-ram file', run: () => qemuToFile(bench, {}) },
];

try {
  const rounds = Number(values.rounds);
  const chosen = contenders.filter(({ name }) => values.only === undefined || name.includes(values.only));
  const raw = [];
  for (let i = 0; i < rounds; i++) raw.push(await rawTcpRate({ bytes: RAM_BYTES }));
  const rows = await compete(chosen, rounds, (line) => process.stderr.write(`${line}\n`));
  for (let i = 0; i < rounds; i++) raw.push(await rawTcpRate({ bytes: RAM_BYTES }));
  raw.sort((x, y) => x - y);
  console.log(`${machineLine()}; ${values.ram} MiB of random bytes; ${rounds} rounds after a warm-up`);
  console.log(table(rows, QEMU_TO_QEMU));
  const median = raw[Math.floor(raw.length / 2)]!;
  console.log(
    `raw Node.js TCP in the same run: ${median.toFixed(2)} GB/s (${raw[0]!.toFixed(2)} - ${raw.at(-1)!.toFixed(2)})`,
  );
  for (const row of rows) console.log(`${row.name}: ${((100 * row.gbPerSecond.median) / median).toFixed(0)} % of raw`);
} finally {
  ram.remove();
  rmSync(folder, { recursive: true, force: true });
}
