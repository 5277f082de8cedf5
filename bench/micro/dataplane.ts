/**
 * What the threads of the data plane cost: CPU seconds a GB of guest memory, of the whole process, so of both ends together. `the sockets alone`
 * is what the same bytes cost without anything around them: the way over channels should be close to it. CPU time, so that others on
 * the machine count less; best of a few runs.
 *
 *   node dist/bench/micro/dataplane.js [MiB per run]
 */
import { once } from 'node:events';
import { closeSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { CopyChannels, type PageChannels, ReceiveChannels, SendChannels } from '../../src/dataplane/index.ts';
import { CheckpointWriter, type MemoryRam, type SharedRam } from '../../src/machine/index.ts';
import { setBlocking } from '../../src/native/index.ts';
import { tcpPair } from '../../test/native/sockets.ts';
import type { RawLink } from './raw-link-thread.ts';

const MIB = 1024 * 1024;
const PAGE = 4096;
const REPEATS = 3;
/** Memory of a run: it is passed over as often as it takes, and has been touched before, so that page faults are not what is measured. */
const MEMORY_MIB = 128;

/** Sum of user and system time that `run` takes, best of a few, s a GB. `prepare` is not counted. */
async function cost(label: string, bytes: number, prepare: () => Promise<() => Promise<unknown>>): Promise<void> {
  let best = { user: Infinity, system: Infinity };
  for (let i = 0; i < REPEATS; i++) {
    const run = await prepare();
    const start = process.cpuUsage();
    const end = await run();
    const used = process.cpuUsage(start);
    if (used.user + used.system < best.user + best.system) best = used;
    if (typeof end === 'function') await end();
  }
  const seconds = (micros: number) => (micros / 1e6 / (bytes / 1e9)).toFixed(3).padStart(7);
  console.log(
    `${label.padEnd(44)} ${seconds(best.user + best.system)}  (user ${seconds(best.user)}, system ${seconds(best.system)})`,
  );
}

function memory(value: number, mebibytes = MEMORY_MIB): MemoryRam {
  const bytes = mebibytes * MIB;
  const block = { idstr: 'ram', usedLength: bytes, memory: new SharedArrayBuffer(bytes), byteOffset: 0 };
  new Int32Array(block.memory).fill(value);
  return { kind: 'memory', pageSize: PAGE, isZero: false, blocks: [block] };
}

/** Every `step`-th page, all of them in the end. */
function* order(step: number): Generator<number> {
  const pages = (MEMORY_MIB * MIB) / PAGE;
  for (let first = 0; first < step; first++) for (let page = first; page < pages; page += step) yield page;
}

async function addAll(channels: PageChannels, pages: Iterable<number>): Promise<void> {
  for (const page of pages) while (!channels.add(0, page)) await channels.room();
}

const failed = (error: Error) => {
  throw error;
};

async function links(count: number): Promise<(readonly [number, number])[]> {
  const pairs = await Promise.all(Array.from({ length: count }, () => tcpPair()));
  for (const fd of pairs.flat()) setBlocking(fd, true);
  return pairs;
}

async function raw(mebibytes: number): Promise<void> {
  await cost('the sockets alone, one', mebibytes * MIB, async () => {
    const [[source, destination]] = (await links(1)) as [readonly [number, number]];
    const [from, to] = [memory(1), memory(2)];
    const start = (way: RawLink['way'], fd: number, ram: MemoryRam) => {
      const workerData: RawLink = { fd, way, bytes: mebibytes * MIB, memory: ram.blocks[0]!.memory };
      return new Worker(new URL('./raw-link-thread.js', import.meta.url), { workerData, trackUnmanagedFds: false });
    };
    return async () => {
      await Promise.all([once(start('send', source, from), 'exit'), once(start('receive', destination, to), 'exit')]);
      closeSync(source);
      closeSync(destination);
    };
  });
}

interface Way {
  readonly channels: number;
  readonly step?: number;
  readonly from: () => SharedRam;
  readonly to: () => SharedRam;
}

async function overChannels(label: string, mebibytes: number, { channels, step = 1, from, to }: Way): Promise<void> {
  await cost(label, mebibytes * MIB, async () => {
    const pairs = await links(channels);
    const options = { compression: 'none', level: 0, findZeroPages: true, failed } as const;
    const source = await SendChannels.start({ ...options, lines: pairs.map(([fd]) => ({ fd })), ram: from() });
    const lines = pairs.map(([, fd]) => ({ fd }));
    const destination = await ReceiveChannels.start({ lines, ram: to(), compression: 'none', failed });
    return async () => {
      for (let pass = 0; pass < mebibytes / MEMORY_MIB; pass++) {
        await addAll(source, order(step));
        await Promise.all([source.sync(), destination.meet()]);
      }
      await source.end();
      await destination.finish();
      destination.close();
    };
  });
}

async function copied(label: string, mebibytes: number, channels: number, from: () => SharedRam, to: () => SharedRam) {
  await cost(label, mebibytes * MIB, async () => {
    const copies = await CopyChannels.start({ count: channels, from: from(), to: to(), failed });
    return async () => {
      for (let pass = 0; pass < mebibytes / MEMORY_MIB; pass++) {
        await addAll(copies, order(1));
        await copies.sync();
      }
      await copies.end();
    };
  });
}

/** Buffers of four devices, taken one after another by their consumers. */
async function deviceState(label: string, mebibytes: number, channels: number): Promise<void> {
  const devices = Array.from({ length: 4 }, (_, instance) => ({ idstr: `vf${instance}/vfio`, instance }));
  const buffers = mebibytes / devices.length;
  await cost(label, mebibytes * MIB, async () => {
    const pairs = await links(channels);
    const options = { compression: 'none', level: 0, findZeroPages: true, failed } as const;
    const state = { devices, buffers: 16 };
    const source = await SendChannels.start({
      ...options,
      lines: pairs.map(([fd]) => ({ fd })),
      ram: memory(0, 1),
      state,
    });
    const destination = await ReceiveChannels.start({
      lines: pairs.map(([, fd]) => ({ fd })),
      ram: memory(0, 1),
      compression: 'none',
      state: { devices, buffersMax: 64, queuedMax: Infinity },
      failed,
    });
    destination.openLanes();
    const send = async (device: number) => {
      for (let index = 0; index < buffers; index++) {
        let out = source.takeBuffer();
        for (; out === undefined; out = source.takeBuffer()) await source.stateRoom();
        while (!source.sendState(device, index, index === buffers - 1, out, MIB)) await source.room();
      }
    };
    const load = async (device: number) => {
      for (let index = 0; index < buffers; index++) (await destination.lanes[device]!.next()).release();
    };
    return async () => {
      await Promise.all(devices.flatMap((_, device) => [send(device), load(device)]));
      destination.endPages();
      await source.end();
      await destination.finish();
      destination.close();
    };
  });
}

export async function dataplaneCosts(mebibytes: number): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'vmferry-bench-'));
  const writers: CheckpointWriter[] = [];
  const files = async (directIo: boolean) => {
    const writer = new CheckpointWriter(join(folder, `machine-${writers.length}`), { directIo });
    writers.push(writer);
    await writer.configure({
      machineType: 'none',
      targetPageBits: undefined,
      capabilities: undefined,
      uuid: undefined,
    });
    const sink = await writer.prepareRam([{ idstr: 'ram', usedLength: MEMORY_MIB * MIB }], { ignoreShared: false });
    return sink.share();
  };
  const full = memory(1);
  const empty = memory(0);
  const into = memory(2);
  try {
    const file = await files(false);
    console.log(`CPU seconds a GB, ${mebibytes} MiB a run`);
    await raw(mebibytes);
    for (const channels of [1, 2]) {
      const way = { channels, from: () => full, to: () => into };
      await overChannels(`pages over ${channels} channels`, mebibytes, way);
    }
    await overChannels('  every other page: no neighbours', mebibytes, {
      channels: 1,
      step: 2,
      from: () => full,
      to: () => into,
    });
    await overChannels('  zero pages', mebibytes, { channels: 1, from: () => empty, to: () => empty });
    await overChannels('  into a checkpoint', mebibytes, { channels: 1, from: () => full, to: () => file });
    await overChannels('  out of a checkpoint', mebibytes, {
      channels: 1,
      from: () => file,
      to: () => into,
    });
    await copied(
      'copied into a checkpoint, 2 threads',
      mebibytes,
      2,
      () => full,
      () => file,
    );
    await copied(
      'copied out of a checkpoint, 2 threads',
      mebibytes,
      2,
      () => file,
      () => into,
    );
    const direct = await files(true).catch(() => undefined);
    if (direct !== undefined) {
      await copied(
        '  into it, direct-io',
        mebibytes,
        2,
        () => full,
        () => direct,
      );
      await copied(
        '  out of it, direct-io',
        mebibytes,
        2,
        () => direct,
        () => into,
      );
    }
    for (const channels of [1, 2]) await deviceState(`device state over ${channels} channels`, mebibytes, channels);
  } finally {
    for (const writer of writers) await writer.discard();
    await rm(folder, { recursive: true });
  }
}

if (import.meta.url === `file://${process.argv[1]}`) await dataplaneCosts(Number(process.argv[2] ?? 1024));
