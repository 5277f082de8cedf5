/** One measured migration of each kind that benchmarks set side by side. Each starts its processes and ends them. */
import { rmSync } from 'node:fs';
import type { QemuPeer, QemuProcess } from '../src/qemu/index.ts';
import { QmpClient } from '../src/qemu/index.ts';
import { cpuSeconds, peakResident, type Sample } from './harness.ts';
import { migrated, type RandomRam, startQemu, VmferryProcess } from './processes.ts';

/** Capabilities and parameters of both ends. */
export interface MoveSettings {
  readonly capabilities?: readonly string[];
  readonly parameters?: Readonly<Record<string, number | string>>;
  /** What object-add is given on each side. */
  readonly objects?: { readonly source: ObjectArguments; readonly destination: ObjectArguments };
}

type Side = 'source' | 'destination';
type ObjectArguments = { readonly 'qom-type': string; readonly id: string } & Readonly<Record<string, string>>;

export interface Bench {
  readonly peer: QemuPeer;
  readonly ram: RandomRam;
  /** A fresh path in the folder of the run. */
  path(name: string): string;
}

/** A machine that migrates has been up for a while: what its process does when it starts is not the migration's. */
const SETTLE_MS = 500;

interface Process {
  readonly pid: number;
}

/** CPU and memory of the processes while `move` runs; `extraOf`: the process whose memory above the guest's counts. */
export async function measured(
  sides: readonly Process[],
  extraOf: { readonly side: Process; readonly guestBytes: number } | undefined,
  move: () => Promise<{ bytes: number; ms: number }>,
): Promise<Sample> {
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
  const before = sides.map(({ pid }) => cpuSeconds(pid));
  const { bytes, ms } = await move();
  const cpu = sides.reduce((sum, { pid }, i) => sum + cpuSeconds(pid) - before[i]!, 0);
  const extraBytes = extraOf === undefined ? 0 : peakResident(extraOf.side.pid) - extraOf.guestBytes;
  return { bytes, ms, cpuSeconds: cpu, extraBytes };
}

export async function qemuToQemu({ peer, ram }: Bench, settings: MoveSettings): Promise<Sample> {
  const [from, to] = await Promise.all([startQemu(peer, ram, 'source'), startQemu(peer, ram, 'destination')]);
  try {
    await configure(to.qmp, settings, 'destination');
    const uri = await listening(to.qmp);
    return await measured([from, to], undefined, () => leaveQemu(from, uri, settings));
  } finally {
    await Promise.all([from.stop(), to.stop()]);
  }
}

/** Between two embedded machines whose RAM is random and stays as it is. */
export async function vmferryToVmferry({ ram, path }: Bench, settings: MoveSettings): Promise<Sample> {
  const machine = ['--ram', `${ram.bytes / 1048576}M`, '--vcpus', '1', '--pattern', 'idle', '--fill', '1'];
  const [a, b] = [path('a.sock'), path('b.sock')];
  const from = new VmferryProcess([
    'run',
    '--qmp',
    a,
    '--set',
    'max-bandwidth=0',
    ...options(settings, 'source'),
    ...machine,
  ]);
  const to = new VmferryProcess([
    ...['run', '--qmp', b, '--incoming', 'defer', '--prealloc', ...options(settings, 'destination'), ...machine],
  ]);
  try {
    await Promise.all([from.line('ready'), to.line('ready')]);
    const [source, destination] = await Promise.all([QmpClient.connect(a), QmpClient.connect(b)]);
    const uri = await listening(destination);
    const sample = await measured([from, to], { side: to, guestBytes: ram.bytes }, async () => {
      await source.executeAny('migrate', { uri });
      return await migrated(source);
    });
    source.close();
    destination.close();
    return sample;
  } finally {
    await Promise.all([from.stop(), to.stop()]);
  }
}

/** Into a checkpoint on disk, at `keep` if the caller wants it afterwards. */
export async function qemuToCheckpoint(bench: Bench, settings: MoveSettings, keep?: string): Promise<Sample> {
  const file = keep ?? bench.path('checkpoint');
  const from = await startQemu(bench.peer, bench.ram, 'source');
  const to = new VmferryProcess(['receive', 'tcp:127.0.0.1:0', '--to', file, ...options(settings, 'destination')]);
  try {
    const { uri } = await to.line('listening');
    const usage = watch(to.pid);
    const before = cpuSeconds(from.pid);
    const moved = await leaveQemu(from, String(uri), settings);
    await to.line('result');
    const { cpu, peak } = usage();
    return { ...moved, cpuSeconds: cpuSeconds(from.pid) - before + cpu, extraBytes: peak };
  } finally {
    await Promise.all([from.stop(), to.stop()]);
    if (keep === undefined) rmSync(file, { force: true });
  }
}

export async function checkpointToQemu({ peer, ram }: Bench, file: string, settings: MoveSettings): Promise<Sample> {
  const to = await startQemu(peer, ram, 'destination');
  try {
    await configure(to.qmp, settings, 'destination');
    const uri = await listening(to.qmp);
    const before = cpuSeconds(to.pid);
    const from = new VmferryProcess(['send', file, uri, ...options(settings, 'source')]);
    const usage = watch(from.pid);
    const result = (await from.line('result')) as { ram?: { transferred: number }; totalTimeMs: number };
    const { cpu, peak } = usage();
    await from.stop();
    const sample = { bytes: result.ram?.transferred ?? 0, ms: result.totalTimeMs };
    return { ...sample, cpuSeconds: cpuSeconds(to.pid) - before + cpu, extraBytes: peak };
  } finally {
    await to.stop();
  }
}

/** QEMU alone, into a mapped-ram file of its own. */
export async function qemuToFile({ peer, ram, path }: Bench, settings: MoveSettings): Promise<Sample> {
  const file = path('qemu-checkpoint');
  const from = await startQemu(peer, ram, 'source');
  const capabilities = [...(settings.capabilities ?? []), 'mapped-ram'];
  try {
    return await measured([from], undefined, () =>
      leaveQemu(from, `file:${file}`, { ...settings, capabilities }, false),
    );
  } finally {
    await from.stop();
    rmSync(file, { force: true });
  }
}

async function leaveQemu(qemu: QemuProcess, uri: string, settings: MoveSettings, returnPath = true) {
  await qemu.qmp.execute('migrate-set-parameters', { 'max-bandwidth': 0 });
  await configure(qemu.qmp, settings, 'source');
  if (returnPath) await configure(qemu.qmp, { capabilities: ['return-path'] }, 'source');
  await qemu.qmp.execute('migrate', { uri });
  return await migrated(qemu.qmp);
}

async function configure(
  qmp: QmpClient,
  { capabilities = [], parameters = {}, objects }: MoveSettings,
  side: Side,
): Promise<void> {
  if (objects !== undefined) await qmp.execute('object-add', objects[side]);
  const on = capabilities.map((capability) => ({ capability, state: true }));
  if (on.length > 0) await qmp.executeAny('migrate-set-capabilities', { capabilities: on });
  if (Object.keys(parameters).length > 0) await qmp.executeAny('migrate-set-parameters', { ...parameters });
}

function options({ capabilities = [], parameters = {}, objects }: MoveSettings, side: Side): string[] {
  const all = [...capabilities.map((name) => `${name}=on`), ...Object.entries(parameters).map((one) => one.join('='))];
  const { 'qom-type': kind = '', ...properties } = objects?.[side] ?? {};
  const declared = [kind, ...Object.entries(properties).map((one) => one.join('='))].join(',');
  const set = all.flatMap((assignment) => ['--set', assignment]);
  return objects === undefined ? set : ['--object', declared, ...set];
}

async function listening(qmp: QmpClient): Promise<string> {
  await qmp.executeAny('migrate-incoming', { uri: 'tcp:127.0.0.1:0' });
  const info = (await qmp.executeAny('query-migrate')) as { 'socket-address'?: { port: string }[] };
  return `tcp:127.0.0.1:${info['socket-address']![0]!.port}`;
}

/** A process that ends with its migration: its last reading counts. Returns how to have it. */
function watch(pid: number): () => { readonly cpu: number; readonly peak: number } {
  const first = cpuSeconds(pid);
  let last = { cpu: 0, peak: 0 };
  const timer = setInterval(() => {
    try {
      last = { cpu: cpuSeconds(pid) - first, peak: peakResident(pid) };
    } catch {
      // It has ended.
    }
  }, 20);
  return () => {
    clearInterval(timer);
    return last;
  };
}
