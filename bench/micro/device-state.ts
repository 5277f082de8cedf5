/**
 * Who loads the state of devices: a load thread for each device, or the receiving threads (whoever completes a run of buffers loads it). Devices of
 * the pace that the thread about load threads measures (100 MiB in 200 ms), 1 to 8 of them, over 2 to 8 channels; ms until the last one is loaded, best of
 * a few runs. The devices wait and do not compute: with a few MiB each and a low rate only the waiting counts, and nothing of the processor.
 *
 *   node dist/bench/micro/device-state.js [MiB per device] [MB/s]
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { nowMs } from '../../src/base/index.ts';
import { ReceiveChannels, SendChannels, type StateLane } from '../../src/dataplane/index.ts';
import type { MemoryRam } from '../../src/machine/index.ts';
import { tcpPair } from '../../test/native/sockets.ts';
import { type PacedDevice, pacedDevice, take } from './paced-loader.ts';

const MIB = 1024 * 1024;
const PAGE = 4096;
const BYTES_PER_SECOND = Number(process.argv[3] ?? 520) * 1e6;
const REPEATS = 3;
const BUFFERS_PER_DEVICE = 16;
const LOADER = new URL('./paced-loader.js', import.meta.url).href;
const mebibytes = Number(process.argv[2] ?? 100);

/** Channels need some memory to be about. */
const RAM: MemoryRam = {
  kind: 'memory',
  pageSize: PAGE,
  isZero: false,
  blocks: [{ idstr: 'ram', usedLength: PAGE, memory: new SharedArrayBuffer(PAGE), byteOffset: 0 }],
};

type Loads = 'load threads' | 'receiving threads';

async function once(devices: number, channels: number, loads: Loads): Promise<number> {
  const pairs = await Promise.all(Array.from({ length: channels }, () => tcpPair()));
  const addresses = Array.from({ length: devices }, (_, i) => ({ idstr: `device${i}`, instance: 0 }));
  const paced = addresses.map(() => pacedDevice(BYTES_PER_SECOND));
  const failed = (error: Error) => {
    throw error;
  };
  const common = { ram: RAM, compression: 'none', failed } as const;
  const sending = await SendChannels.start({
    ...common,
    lines: pairs.map(([fd]) => ({ fd })),
    level: 1,
    findZeroPages: true,
    state: { devices: addresses, buffers: 4 * devices + BUFFERS_PER_DEVICE },
  });
  const receiving = await ReceiveChannels.start({
    ...common,
    lines: pairs.map(([, fd]) => ({ fd })),
    state: {
      devices: addresses.map((address, i) =>
        loads === 'load threads' ? address : { ...address, loader: { module: LOADER, data: paced[i] } },
      ),
      buffersMax: Math.max(64, BUFFERS_PER_DEVICE * devices),
      queuedMax: Number.POSITIVE_INFINITY,
    },
  });
  receiving.openLanes();
  const start = nowMs();
  await Promise.all([
    ...addresses.map((_, device) => send(sending, device)),
    ...receiving.lanes.map((lane, device) => load(lane, paced[device]!)),
  ]);
  const ms = nowMs() - start;
  receiving.endPages();
  sending.cancel();
  receiving.cancel();
  await Promise.all([sending.closed(), receiving.closed()]);
  return ms;
}

async function send(channels: SendChannels, device: number): Promise<void> {
  for (let index = 0; index <= mebibytes; index++) {
    let buffer = channels.takeBuffer();
    for (; buffer === undefined; buffer = channels.takeBuffer()) await channels.stateRoom();
    const last = index === mebibytes;
    while (!channels.sendState(device, index, last, buffer, last ? 1 : MIB)) await channels.room();
  }
}

/** The device's load thread, but that it only waits; or who waits until the receiving threads have loaded it. */
async function load(lane: StateLane, device: PacedDevice): Promise<void> {
  for (;;) {
    const buffer = await lane.next();
    if (!buffer.isConfig) {
      const ms = take(device, buffer.bytes.length);
      // A timer sleeps at least 1 ms; what is less is made up for by the next bytes.
      if (ms >= 1) await sleep(ms);
    }
    buffer.release();
    if (buffer.isConfig) return;
  }
}

console.log(
  `${mebibytes} MiB per device, ${Math.round(((mebibytes * MIB) / BYTES_PER_SECOND) * 1000)} ms at its own pace\n`,
);
console.log('| devices | channels | load threads, ms | receiving threads, ms |\n| --- | --- | --- | --- |');
for (const devices of [1, 2, 4, 8]) {
  for (const channels of [2, 4, 8]) {
    const best: Record<Loads, number> = { 'load threads': Infinity, 'receiving threads': Infinity };
    for (let i = 0; i < REPEATS; i++)
      for (const loads of Object.keys(best) as Loads[])
        best[loads] = Math.min(best[loads], await once(devices, channels, loads));
    const [threads, receivers] = Object.values(best).map((ms) => ms.toFixed(0));
    console.log(`| ${devices} | ${channels} | ${threads} | ${receivers} |`);
  }
}
