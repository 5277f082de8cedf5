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
import { findPeer, type QemuProcess, QmpClient } from '../src/qemu/index.ts';
import { type Contender, compete, cpuSeconds, machineLine, peakResident, type Sample, table } from './harness.ts';
import { migrated, RandomRam, startQemu, VmferryProcess } from './processes.ts';
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
const path = (name: string) => join(folder, `${name}-${serial++}`);

interface Side {
  readonly pid: number;
}

/** CPU and memory of the processes while `move` runs. */
async function measured(
  sides: readonly Side[],
  extraOf: Side | undefined,
  move: () => Promise<{ bytes: number; ms: number }>,
): Promise<Sample> {
  const before = sides.map(({ pid }) => cpuSeconds(pid));
  const { bytes, ms } = await move();
  const cpu = sides.reduce((sum, { pid }, i) => sum + cpuSeconds(pid) - before[i]!, 0);
  return { bytes, ms, cpuSeconds: cpu, extraBytes: extraOf === undefined ? 0 : peakResident(extraOf.pid) - RAM_BYTES };
}

async function qemuSource(uri: string, qemu: QemuProcess, capability = 'return-path') {
  await qemu.qmp.execute('migrate-set-parameters', { 'max-bandwidth': 0 });
  await qemu.qmp.execute('migrate-set-capabilities', { capabilities: [{ capability, state: true }] });
  await qemu.qmp.execute('migrate', { uri });
  return await migrated(qemu.qmp);
}

async function listening(qmp: QmpClient): Promise<string> {
  await qmp.executeAny('migrate-incoming', { uri: 'tcp:127.0.0.1:0' });
  const info = (await qmp.executeAny('query-migrate')) as { 'socket-address'?: { port: string }[] };
  return `tcp:127.0.0.1:${info['socket-address']![0]!.port}`;
}

const QEMU_TO_QEMU = 'QEMU 11.1 to QEMU 11.1';
const contenders: Contender[] = [
  {
    name: QEMU_TO_QEMU,
    async run() {
      const [from, to] = await Promise.all([startQemu(peer, ram, 'source'), startQemu(peer, ram, 'destination')]);
      try {
        const uri = await listening(to.qmp);
        return await measured([from, to], undefined, () => qemuSource(uri, from));
      } finally {
        await Promise.all([from.stop(), to.stop()]);
      }
    },
  },
  {
    name: 'vmferry to vmferry',
    async run() {
      const machine = ['--ram', `${values.ram}M`, '--vcpus', '1', '--pattern', 'idle', '--fill', '1'];
      const [a, b] = [path('a.sock'), path('b.sock')];
      const from = new VmferryProcess(['run', '--qmp', a, '--set', 'max-bandwidth=0', ...machine]);
      const to = new VmferryProcess(['run', '--qmp', b, '--incoming', 'defer', '--prealloc', ...machine]);
      try {
        await Promise.all([from.line('ready'), to.line('ready')]);
        const [source, destination] = await Promise.all([QmpClient.connect(a), QmpClient.connect(b)]);
        const uri = await listening(destination);
        const sample = await measured([from, to], to, async () => {
          await source.executeAny('migrate', { uri });
          return await migrated(source);
        });
        source.close();
        destination.close();
        return sample;
      } finally {
        await Promise.all([from.stop(), to.stop()]);
      }
    },
  },
  {
    name: 'QEMU 11.1 to vmferry checkpoint',
    async run() {
      const file = path('checkpoint');
      const from = await startQemu(peer, ram, 'source');
      const to = new VmferryProcess(['receive', 'tcp:127.0.0.1:0', '--to', file]);
      try {
        const { uri } = await to.line('listening');
        // The receiver ends with the migration: its last reading counts.
        const before = [cpuSeconds(from.pid), cpuSeconds(to.pid)] as const;
        let last = { cpu: before[1], peak: 0 };
        const watch = setInterval(() => {
          try {
            last = { cpu: cpuSeconds(to.pid), peak: peakResident(to.pid) };
          } catch {
            // It has ended.
          }
        }, 20);
        const moved = await qemuSource(String(uri), from);
        clearInterval(watch);
        await to.line('result');
        const cpu = cpuSeconds(from.pid) - before[0] + last.cpu - before[1];
        return { ...moved, cpuSeconds: cpu, extraBytes: last.peak };
      } finally {
        await Promise.all([from.stop(), to.stop()]);
        rmSync(file, { force: true });
      }
    },
  },
  {
    name: 'QEMU 11.1 to its own mapped-ram file',
    async run() {
      const file = path('qemu-checkpoint');
      const from = await startQemu(peer, ram, 'source');
      try {
        return await measured([from], undefined, () => qemuSource(`file:${file}`, from, 'mapped-ram'));
      } finally {
        await from.stop();
        rmSync(file, { force: true });
      }
    },
  },
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
