/** State of devices beside the pages: it arrives in order whatever the channels do, by consumers and by the receiving threads. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { closeSync, writeSync } from 'node:fs';
import test, { type TestContext } from 'node:test';
import type {
  ChannelError,
  ReceiveChannels,
  ReceivedState,
  SendChannels,
  StateLane,
} from '../../src/dataplane/index.ts';
import { deviceStateHeader, MULTIFD_FLAG, writeDeviceBuffer, writeMultifdHeader } from '../../src/wire/index.ts';
import { Random } from '../campaign/random.ts';
import { closeAll, isOpen } from '../native/sockets.ts';
import { until } from './held-link.ts';
import { loadedMemory } from './memory-loader.ts';
import {
  addAll,
  bytesOf,
  openSockets,
  PAGE,
  pairs,
  ramOf,
  receiver,
  receiverBehindInitial,
  sameRam,
  sender,
  writeFromThread,
} from './support.ts';

const MIB = 1024 * 1024;
const LOADER = new URL('./memory-loader.js', import.meta.url).href;

const addresses = (count: number) =>
  Array.from({ length: count }, (_, i) => ({ idstr: `0000:00:0${i}.0/vfio`, instance: i }));

/** What a device has to send: buffers of any length up to 1 MiB, the last is its configuration. */
function stateOf(random: Random, buffers: number): Buffer[] {
  return Array.from({ length: buffers }, (_, index) => {
    const length = index === buffers - 1 ? random.int(1, 2000) : random.pick([0, 1, random.int(2, MIB - 1), MIB]);
    const bytes = Buffer.alloc(length, random.int(1, 255));
    for (let at = 0; at + 4 <= length; at += 4096) bytes.writeUInt32LE(random.int(0, 0xffffffff), at);
    return bytes;
  });
}

async function sendAll(channels: SendChannels, device: number, buffers: readonly Buffer[]): Promise<void> {
  for (const [index, bytes] of buffers.entries()) {
    let out = channels.takeBuffer();
    for (; out === undefined; out = channels.takeBuffer()) await channels.stateRoom();
    bytes.copy(out.bytes);
    const isConfig = index === buffers.length - 1;
    while (!channels.sendState(device, index, isConfig, out, bytes.length)) await channels.room();
  }
}

interface Loaded {
  readonly hash: string;
  readonly bytes: number;
  readonly config: Buffer;
}

/** A consumer of a device, with work between its buffers. */
async function consume(lane: StateLane, work: () => Promise<unknown> = async () => {}): Promise<Loaded> {
  const hash = createHash('sha256');
  let bytes = 0;
  for (let index = 0; ; index++) {
    const buffer = await lane.next();
    assert.equal(buffer.index, index);
    await work();
    if (buffer.isConfig) {
      const config = Buffer.from(buffer.bytes);
      buffer.release();
      return { hash: hash.digest('hex'), bytes, config };
    }
    hash.update(buffer.bytes);
    bytes += buffer.bytes.length;
    buffer.release();
  }
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

for (const [seed, { channels, devices, buffersMax, queuedMax, loads }] of (
  [
    { channels: 1, devices: 1, buffersMax: 2, queuedMax: 1, loads: 'consumer' },
    { channels: 3, devices: 4, buffersMax: 5, queuedMax: 1, loads: 'consumer' },
    { channels: 2, devices: 3, buffersMax: 16, queuedMax: 2, loads: 'consumer' },
    { channels: 4, devices: 2, buffersMax: 64, queuedMax: Infinity, loads: 'consumer' },
    { channels: 3, devices: 4, buffersMax: 5, queuedMax: 1, loads: 'threads' },
    { channels: 2, devices: 3, buffersMax: 64, queuedMax: Infinity, loads: 'threads' },
  ] as const
).entries()) {
  const how = `${channels} channels, ${devices} devices, ${buffersMax} buffers, bound ${queuedMax}, loaded by ${loads}`;
  test(`with pages beside it: ${how}`, async (t) => {
    const random = new Random(20261127, seed);
    const links = pairs(channels);
    const from = ramOf(2048);
    for (let page = 0; page < 2048; page++) bytesOf(from, 0).fill(random.int(1, 255), page * PAGE, (page + 1) * PAGE);
    const to = ramOf(2048);
    const states = addresses(devices).map(() => stateOf(random, random.int(1, 25)));
    const loaders = states.map((buffers) => loadedMemory(buffers.reduce((sum, { length }) => sum + length, 0)));
    const source = await sender(
      t,
      links.map(([fd]) => fd),
      from,
      { state: { devices: addresses(devices), buffers: 6 } },
    );
    const destination = await receiver(
      t,
      links.map(([, fd]) => fd),
      to,
      {
        state: {
          devices: addresses(devices).map((address, device) =>
            loads === 'consumer' ? address : { ...address, loader: { module: LOADER, data: loaders[device] } },
          ),
          buffersMax,
          queuedMax,
        },
      },
    );
    // A round of pages, then state while the last pages go, with points in between.
    const pages = Array.from({ length: 2048 }, (_, page) => page);
    await addAll(source, 0, pages);
    await Promise.all([source.sync(), destination.meet()]);
    const sending = states.map((buffers, device) => sendAll(source, device, buffers));
    const loading = destination.lanes.map((lane, device) => {
      if (loads === 'consumer') return consume(lane, device % 2 === 0 ? undefined : turn);
      return lane.next().then((buffer) => {
        assert.ok(buffer.isConfig);
        assert.equal(buffer.index, states[device]!.length - 1);
        const config = Buffer.from(buffer.bytes);
        buffer.release();
        return config;
      });
    });
    destination.openLanes();
    for (let point = 0; point < 3; point++) {
      await addAll(
        source,
        0,
        pages.filter((page) => page % 3 === point),
      );
      await Promise.all([source.sync(), destination.meet()]);
    }
    await Promise.all(sending);
    destination.endPages();
    const loaded = await Promise.all(loading);
    await source.end();
    await destination.finish();
    destination.close();
    assert.ok(sameRam(from, to));
    for (const [device, buffers] of states.entries()) {
      const whole = Buffer.concat(buffers.slice(0, -1));
      const found = loaded[device]!;
      if (Buffer.isBuffer(found)) {
        const { memory, words } = loaders[device]!;
        const [bytes, , together] = new Int32Array(words);
        assert.equal(bytes, whole.length);
        assert.ok(together! <= 1, 'one load at a time');
        assert.ok(Buffer.from(memory, 0, bytes).equals(whole));
        assert.ok(found.equals(buffers.at(-1)!));
      } else {
        const hash = createHash('sha256').update(whole).digest('hex');
        assert.deepEqual(found, { hash, bytes: whole.length, config: buffers.at(-1) });
      }
    }
    const stateBytes = states.flat().reduce((sum, { length }) => sum + length, 0);
    assert.equal(source.totals.stateBytes, stateBytes);
    assert.deepEqual(destination.totals, source.totals);
  });
}

/** Packets as a peer might send them. */
function packet(device: number, index: number, isConfig: boolean, bytes: Buffer): Buffer {
  const header = deviceStateHeader(addresses(9)[device]!);
  writeDeviceBuffer(header, index, isConfig, bytes.length);
  return Buffer.concat([header, bytes]);
}

function sync(): Buffer {
  const bytes = Buffer.alloc(1344);
  writeMultifdHeader(bytes, MULTIFD_FLAG.SYNC, undefined, 0, 0, 0, 1, new Float64Array(1));
  return bytes;
}

const content = (device: number, index: number) => Buffer.alloc(40_000, `d${device}b${index};`);
const data = (device: number, index: number) => packet(device, index, false, content(device, index));
const config = (device: number, index: number) => packet(device, index, true, content(device, index));

interface Opened {
  readonly channels: ReceiveChannels;
  readonly fds: readonly number[];
  readonly failures: ChannelError[];
}

async function opened(
  t: TestContext,
  count: number,
  state?: Partial<ReceivedState> & { devices?: ReceivedState['devices'] },
): Promise<Opened> {
  const links = pairs(count);
  const fds = links.map(([fd]) => fd);
  t.after(() => closeAll(fds.filter(isOpen)));
  const failures: ChannelError[] = [];
  const channels = await receiverBehindInitial(
    t,
    links.map(([, fd]) => fd),
    ramOf(16),
    {
      state: { devices: addresses(2), buffersMax: 8, queuedMax: 1, ...state },
      failed: (error) => failures.push(error),
    },
  );
  return { channels, fds, failures };
}

async function failureOf(promise: Promise<unknown>): Promise<ChannelError> {
  return (await promise.then(
    () => assert.fail('it did not fail'),
    (error) => error,
  )) as ChannelError;
}

test('two channels that each hold the next buffer of the other device: no deadlock, with a bound of one buffer', async (t) => {
  for (const loads of ['consumer', 'threads']) {
    const loader = { module: LOADER, data: loadedMemory(200_000) };
    const devices = addresses(2).map((address) => (loads === 'consumer' ? address : { ...address, loader }));
    const { channels, fds } = await opened(t, 2, { devices });
    channels.openLanes();
    // As in the discussion, counted from 0: (device 0 buffer 1) (device 1 buffer 0) and (device 1 buffer 1) (device 0 buffer 0).
    writeSync(fds[0]!, data(0, 1));
    writeSync(fds[1]!, data(1, 1));
    await until(() => channels.totals.packets === 2, 'what neither device can take yet');
    writeSync(fds[0]!, Buffer.concat([data(1, 0), config(0, 2)]));
    writeSync(fds[1]!, Buffer.concat([data(0, 0), config(1, 2)]));
    if (loads === 'consumer') {
      for (const [device, { config: last }] of (
        await Promise.all(channels.lanes.map((lane) => consume(lane)))
      ).entries()) {
        assert.ok(last.equals(content(device, 2)));
      }
    } else await Promise.all(channels.lanes.map((lane) => lane.next().then((buffer) => buffer.release())));
    channels.endPages();
    await channels.finish();
    channels.close();
  }
});

test('a device that loads nothing holds no other back', async (t) => {
  const { channels, fds } = await opened(t, 2, { buffersMax: 40, queuedMax: 1 });
  channels.openLanes();
  // Device 0 takes its first buffer and never another; all that device 1 needs is behind what is there for device 0.
  const held = channels.lanes[0]!.next();
  const sent = fds.map((fd, channel) => {
    const packets: Buffer[] = [];
    for (let i = channel; i < 10; i += 2)
      packets.push(data(0, 2 * i), data(0, 2 * i + 1), i < 9 ? data(1, i) : config(1, i));
    return writeFromThread(fd, Buffer.concat(packets));
  });
  const { config: last } = await consume(channels.lanes[1]!);
  assert.ok(last.equals(content(1, 9)));
  // It is through with its state and starves no more: what is left is held up by the bound of device 0.
  (await held).release();
  for (let index = 1; index < 20; index++) (await channels.lanes[0]!.next()).release();
  await Promise.all(sent);
  channels.cancel();
});

test('while all devices have work the bound of each holds its channels up, and a release lets them go', async (t) => {
  const { channels, fds } = await opened(t, 2, { devices: addresses(1), buffersMax: 8, queuedMax: 2 });
  const [lane] = channels.lanes;
  channels.openLanes();
  writeSync(fds[0]!, Buffer.concat([data(0, 0), data(0, 1), data(0, 2)]));
  writeSync(fds[1]!, Buffer.concat([data(0, 3), sync()]));
  const first = await lane!.next();
  await until(() => channels.totals.packets >= 2, 'as many as the bound allows');
  assert.ok(channels.totals.packets <= 3, 'buffer 0, and one or two more');
  first.release();
  for (let index = 1; index < 4; index++) (await lane!.next()).release();
  await until(() => channels.totals.packets === 5, 'SYNC');
  writeSync(fds[0]!, sync());
  await channels.meet();
  channels.cancel();
});

test('loading begins when the lanes are opened, whoever loads', async (t) => {
  const memory = loadedMemory(200_000);
  const devices = [{ ...addresses(1)[0]!, loader: { module: LOADER, data: memory } }];
  const { channels, fds } = await opened(t, 2, { devices, queuedMax: 8 });
  writeSync(fds[0]!, Buffer.concat([data(0, 0), data(0, 2)]));
  writeSync(fds[1]!, Buffer.concat([data(0, 1), config(0, 3)]));
  await until(() => channels.totals.packets >= 3, 'what there is room for');
  const words = new Int32Array(memory.words);
  assert.equal(Atomics.load(words, 0), 0);
  const last = channels.lanes[0]!.next();
  channels.openLanes();
  const buffer = await last;
  assert.equal(buffer.index, 3);
  assert.equal(words[0], 120_000);
  assert.ok(Buffer.from(memory.memory, 0, 120_000).equals(Buffer.concat([0, 1, 2].map((index) => content(0, index)))));
  buffer.release();
  channels.cancel();
});

const refusals: readonly [string, string, readonly Buffer[], RegExp][] = [
  [
    'a duplicate',
    'DATAPLANE_STATE_ORDER',
    [data(0, 1), data(0, 1)],
    /device 0000:00:00.0\/vfio 0: buffer 1: it has come before/,
  ],
  ['behind the last', 'DATAPLANE_STATE_ORDER', [config(0, 1), data(0, 2)], /buffer 2: it is behind the last one/],
  [
    'a last one before others',
    'DATAPLANE_STATE_ORDER',
    [data(0, 3), config(0, 1)],
    /buffer 1: it is marked as the last/,
  ],
  [
    'an unknown device',
    'WIRE_UNEXPECTED_VALUE',
    [data(2, 0)],
    /device: expected one that sends its state here, found 0000:00:02.0\/vfio 2/,
  ],
  ['no index', 'WIRE_UNEXPECTED_VALUE', [data(0, 0xffffffff)], /index: expected below 0xffffffff/],
  [
    'too large',
    'WIRE_LIMIT',
    [packet(0, 0, false, Buffer.alloc(MIB + 1)).subarray(0, 288)],
    /next_packet_size: at most 1048588/,
  ],
];

for (const [name, code, packets, message] of refusals) {
  test(`refused: ${name}`, async (t) => {
    const before = openSockets();
    const { channels, fds, failures } = await opened(t, 2, { queuedMax: 8 });
    const waiting = failureOf(channels.lanes[1]!.next());
    writeSync(fds[1]!, Buffer.concat(packets));
    const error = await waiting;
    assert.equal(error.code, code);
    assert.match(error.message, message);
    const { fault } = error;
    if ('stream' in fault) assert.equal(fault.stream, 'multifd 1');
    else assert.ok('channel' in fault && fault.channel === 1);
    assert.equal(failures.length, 1);
    await channels.closed();
    closeAll(fds);
    assert.equal(openSockets(), before);
  });
}

test('a device that refuses what is loaded ends all channels', async (t) => {
  const memory = loadedMemory(200_000);
  new Int32Array(memory.words)[3] = 50_000;
  const devices = addresses(2).map((address) => ({ ...address, loader: { module: LOADER, data: memory } }));
  const { channels, fds } = await opened(t, 2, { devices: devices.slice(0, 1) });
  channels.openLanes();
  const waiting = failureOf(channels.lanes[0]!.next());
  writeSync(fds[0]!, Buffer.concat([data(0, 0), data(0, 1), data(0, 2)]));
  const { fault, message } = await waiting;
  assert.ok(fault.code === 'DATAPLANE_STATE_LOAD');
  assert.deepEqual([fault.channel, fault.index, fault.reason], [0, 2, 'the device has had enough']);
  assert.match(
    message,
    /multifd 0: offset \d+: device 0000:00:00.0\/vfio 0: buffer 2: cannot be loaded: the device has had enough/,
  );
});

test('a buffer that never comes is missed when all channels have ended', async (t) => {
  const { channels, fds } = await opened(t, 2);
  channels.openLanes();
  writeSync(fds[0]!, data(0, 0));
  writeSync(fds[1]!, config(0, 2));
  (await channels.lanes[0]!.next()).release();
  const waiting = failureOf(channels.lanes[0]!.next());
  for (const fd of fds) closeSync(fd);
  const { fault } = await waiting;
  assert.deepEqual(fault, { code: 'DATAPLANE_STATE_MISSING', idstr: '0000:00:00.0/vfio', instance: 0, index: 1 });
});

test('a channel that ends inside a buffer says where', async (t) => {
  const { channels, fds } = await opened(t, 1);
  const waiting = failureOf(channels.lanes[0]!.next());
  writeSync(fds[0]!, data(0, 0).subarray(0, 288 + 7));
  closeSync(fds[0]!);
  const { fault } = await waiting;
  assert.ok(fault.code === 'WIRE_TRUNCATED');
  assert.deepEqual([fault.offset, fault.available, fault.wanted], [64 + 295, 295, 288 + 40_000]);
});

test('an order that no sender makes, and that memory cannot hold, is an error and no hang', async (t) => {
  const { channels, fds } = await opened(t, 2, { buffersMax: 3 });
  channels.openLanes();
  const waiting = failureOf(channels.lanes[0]!.next());
  writeSync(fds[0]!, Buffer.concat([data(0, 1), data(0, 2)]));
  writeSync(fds[1]!, Buffer.concat([data(1, 1), data(1, 2)]));
  const { fault } = await waiting;
  assert.deepEqual(fault, { code: 'DATAPLANE_STATE_STUCK', slots: 3 });
});

test('state in front of a point that main meets before devices may load is an error and no hang', async (t) => {
  const { channels, fds } = await opened(t, 2, { devices: addresses(1), buffersMax: 8, queuedMax: 1 });
  const met = failureOf(channels.meet());
  writeSync(fds[0]!, Buffer.concat([data(0, 0), data(0, 1), sync()]));
  writeSync(fds[1]!, sync());
  assert.equal((await met).code, 'DATAPLANE_STATE_STUCK');
});

test('cancelling while channels sleep for a slot takes no time', async (t) => {
  const before = openSockets();
  const { channels, fds, failures } = await opened(t, 4, { devices: addresses(1), queuedMax: 1 });
  for (const [index, fd] of fds.entries()) writeSync(fd, data(0, index));
  await until(() => channels.totals.packets >= 1, 'the first');
  const start = performance.now();
  channels.cancel();
  await channels.closed();
  assert.ok(performance.now() - start < 5_000);
  assert.deepEqual(failures, []);
  closeAll(fds);
  assert.equal(openSockets(), before);
});

test('without devices such a packet is refused', async (t) => {
  const { channels, fds } = await opened(t, 1, { devices: [] });
  const met = failureOf(channels.meet());
  writeSync(fds[0]!, data(0, 0));
  assert.equal((await met).code, 'WIRE_UNSUPPORTED');
});
