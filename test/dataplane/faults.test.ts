/** Everything that can end a channel ends all of them promptly, with an error that says which and where, and leaves nothing behind. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { closeSync, writeSync } from 'node:fs';
import test, { type TestContext } from 'node:test';
import {
  announceChannel,
  type ChannelError,
  type PageCompression,
  type ReceiveChannels,
} from '../../src/dataplane/index.ts';
import { shutdownConnection } from '../../src/native/index.ts';
import { MULTIFD_COMPRESSION, MULTIFD_FLAG } from '../../src/wire/index.ts';
import { closeAll, isOpen, receiveAll, tcpPair } from '../native/sockets.ts';
import { until } from './held-link.ts';
import {
  addAll,
  bytesOf,
  HEADER,
  openSockets,
  PAGE,
  packet,
  pairs,
  ramOf,
  receiverBehindInitial,
  sender,
} from './support.ts';

const INITIAL = 64;

const SYNC = packet(0, 0, MULTIFD_FLAG.SYNC);

interface Opened {
  readonly channels: ReceiveChannels;
  /** Of the test: the source's ends. */
  readonly fds: readonly number[];
  readonly failures: ChannelError[];
  readonly to: ReturnType<typeof ramOf>;
}

async function opened(t: TestContext, count: number, compression: PageCompression = 'none'): Promise<Opened> {
  const links = pairs(count);
  const fds = links.map(([fd]) => fd);
  t.after(() => closeAll(fds.filter(isOpen)));
  const failures: ChannelError[] = [];
  const to = ramOf(16);
  const channels = await receiverBehindInitial(
    t,
    links.map(([, fd]) => fd),
    to,
    {
      compression,
      failed: (error) => failures.push(error),
    },
  );
  return { channels, fds, failures, to };
}

async function failureOf(promise: Promise<unknown>): Promise<ChannelError> {
  return (await promise.then(
    () => assert.fail('it did not fail'),
    (error) => error,
  )) as ChannelError;
}

const STREAM = Buffer.concat([packet(2, 1), packet(0, 0), packet(1, 0), SYNC]);
const BOUNDARIES = [0, HEADER + 2 * PAGE, 2 * HEADER + 2 * PAGE, 3 * HEADER + 3 * PAGE];
const CUTS = [
  ...[0, 1, 11, 12, 64, 320, HEADER - 1, HEADER, HEADER + 1, HEADER + PAGE - 1, HEADER + PAGE, HEADER + 2 * PAGE - 1],
  ...[HEADER + 2 * PAGE, HEADER + 2 * PAGE + 1, 2 * HEADER + 2 * PAGE, 3 * HEADER + 2 * PAGE + 5],
  ...[3 * HEADER + 3 * PAGE, 3 * HEADER + 3 * PAGE + 700, STREAM.length - 1],
];

test('a channel that ends anywhere before its SYNC fails all of them, and says where', async (t) => {
  const before = openSockets();
  for (const cut of CUTS) {
    const { channels, fds, failures } = await opened(t, 2);
    const met = failureOf(channels.meet());
    writeSync(fds[0]!, STREAM);
    writeSync(fds[1]!, STREAM, 0, cut);
    closeSync(fds[1]!);
    const { fault } = await met;
    const offset = INITIAL + cut;
    if (BOUNDARIES.includes(cut)) assert.deepEqual(fault, { code: 'DATAPLANE_ENDED', channel: 1, offset, sync: 1 });
    else {
      assert.ok(fault.code === 'WIRE_TRUNCATED', `${cut}: ${fault.code}`);
      assert.deepEqual([fault.stream, fault.offset], ['multifd 1', offset]);
      assert.ok(fault.available < fault.wanted);
    }
    assert.equal(failures.length, 1);
    await channels.closed();
    await failureOf(channels.meet());
    await failureOf(channels.finish());
    closeSync(fds[0]!);
  }
  assert.equal(openSockets(), before);
});

test('a connection that breaks fails all channels', async (t) => {
  const before = openSockets();
  const [source, destination] = await tcpPair();
  const [other] = pairs(1);
  const channels = await receiverBehindInitial(t, [other![1], destination], ramOf(16));
  const met = failureOf(channels.meet());
  writeSync(source, STREAM, 0, 100);
  await until(() => channels.totals.bytes === 2 * INITIAL + 100, 'the first bytes');
  // Linger for no time: a reset instead of an end.
  const koffi = (await import('koffi')).default;
  const setsockopt = koffi
    .load('libc.so.6')
    .func('int setsockopt(int fd, int level, int name, const int *value, int length)');
  assert.equal(setsockopt(source, 1, 13, new Int32Array([1, 0]), 8), 0);
  closeSync(source);
  const { fault, message } = await met;
  assert.deepEqual(fault, { code: 'DATAPLANE_LOST', channel: 1, offset: INITIAL + 100, errno: 'ECONNRESET' });
  assert.match(message, /multifd 1: offset 164: connection lost \(ECONNRESET\)/);
  await channels.closed();
  closeSync(other![0]);
  assert.equal(openSockets(), before);
});

const damages: readonly [string, Buffer, PageCompression?][] = [
  ['WIRE_UNEXPECTED_VALUE', Buffer.alloc(HEADER, 0x51)],
  ['WIRE_UNSUPPORTED', packet(1, 0, MULTIFD_COMPRESSION.qpl)],
  ['WIRE_UNSUPPORTED', packet(0, 0, MULTIFD_FLAG.DEVICE_STATE)],
  ['WIRE_LIMIT', packet(129, 0).subarray(0, HEADER)],
  ['DATAPLANE_CODEC', packet(1, 0, MULTIFD_COMPRESSION.zlib), 'zlib'],
  ['DATAPLANE_CODEC', packet(1, 0, MULTIFD_COMPRESSION.zstd), 'zstd'],
];

for (const [code, bytes, compression] of damages) {
  test(`bytes that are wrong: ${code} ${compression ?? ''}`, async (t) => {
    const { channels, fds } = await opened(t, 1, compression);
    writeSync(fds[0]!, SYNC);
    await channels.meet();
    const met = failureOf(channels.meet());
    writeSync(fds[0]!, bytes);
    const { fault } = await met;
    assert.equal(fault.code, code);
    if ('stream' in fault) assert.ok(fault.stream === 'multifd 0' && fault.offset >= INITIAL + HEADER);
    else assert.ok('channel' in fault && fault.channel === 0);
    await channels.closed();
  });
}

test('a SYNC that nobody collects holds nothing up, nor does a part of one (QEMU 9.1, 9.2)', async (t) => {
  for (const rest of [SYNC, SYNC.subarray(0, 700), Buffer.alloc(0)]) {
    const { channels, fds } = await opened(t, 3);
    const met = channels.meet();
    for (const fd of fds) writeSync(fd, SYNC);
    await met;
    for (const fd of fds) if (rest.length > 0) writeSync(fd, rest);
    await channels.finish();
    assert.deepEqual(fds.map(isOpen), [true, true, true]);
    channels.close();
  }
});

test('pages behind the last point are an error, and stay out of memory', async (t) => {
  const { channels, fds, to } = await opened(t, 2);
  for (const fd of fds) writeSync(fd, SYNC);
  // Parked: nobody has met yet.
  await until(() => channels.totals.packets === 2, 'SYNC on both');
  writeSync(fds[1]!, packet(3, 0));
  const { fault } = await failureOf(channels.finish());
  assert.ok(fault.code === 'DATAPLANE_LATE_PAGES');
  assert.equal(fault.channel, 1);
  assert.ok(bytesOf(to, 0).every((byte) => byte === 0));
});

test('channels that ended after their last SYNC have done their work', async (t) => {
  const { channels, fds, failures } = await opened(t, 2);
  for (const fd of fds) {
    writeSync(fd, packet(2, 0));
    writeSync(fd, SYNC);
    closeSync(fd);
  }
  await channels.meet();
  await channels.finish();
  channels.close();
  assert.deepEqual(failures, []);
  assert.equal(channels.totals.normalPages, 4);
});

test('a sender hears that its peer has gone, wherever it is', async (t) => {
  const before = openSockets();
  for (const bytes of [INITIAL, INITIAL + 5, INITIAL + HEADER + 3 * PAGE, INITIAL + HEADER + 128 * PAGE]) {
    const links = pairs(2);
    const ram = ramOf(4096);
    bytesOf(ram, 0).fill(1);
    const failures: ChannelError[] = [];
    const source = await sender(
      t,
      links.map(([fd]) => fd),
      ram,
      { failed: (error) => failures.push(error) },
    );
    const added = failureOf(
      addAll(
        source,
        0,
        Array.from({ length: 4096 }, (_, page) => page),
      ),
    );
    receiveAll(links[1]![1], bytes);
    closeSync(links[1]![1]);
    const { fault } = await added;
    assert.ok(fault.code === 'DATAPLANE_LOST', fault.code);
    assert.equal(fault.channel, 1);
    assert.ok(fault.offset >= bytes && (fault.errno === 'EPIPE' || fault.errno === 'ECONNRESET'));
    assert.equal(failures.length, 1);
    await source.closed();
    await failureOf(source.room());
    await failureOf(source.end().catch((error) => Promise.reject(error)));
    closeSync(links[0]![1]);
  }
  assert.equal(openSockets(), before);
});

test('cancelling 16 channels that all wait takes no time', async (t) => {
  const before = openSockets();
  const links = pairs(16);
  const ram = ramOf(8192);
  bytesOf(ram, 0).fill(1);
  const failures: ChannelError[] = [];
  const failed = (error: ChannelError) => failures.push(error);
  const source = await sender(
    t,
    links.map(([fd]) => fd),
    ram,
    { failed },
  );
  const added = failureOf(
    addAll(
      source,
      0,
      Array.from({ length: 8192 }, () => 0),
    ).then(() => source.sync()),
  );
  const idle = pairs(16);
  const destination = await receiverBehindInitial(
    t,
    idle.map(([, fd]) => fd),
    ramOf(1),
    { failed },
  );
  const met = failureOf(destination.meet());
  const start = performance.now();
  source.cancel(new Error('enough'));
  destination.cancel();
  for (const error of await Promise.all([added, met])) assert.equal(error.code, 'DATAPLANE_CANCELLED');
  assert.equal(((await added).cause as Error).message, 'enough');
  await Promise.all([source.closed(), destination.closed()]);
  assert.ok(performance.now() - start < 5_000);
  assert.deepEqual(failures, []);
  closeAll([...links.map(([, fd]) => fd), ...idle.map(([fd]) => fd)]);
  assert.equal(openSockets(), before);
});

test('a connection that is gone before it says what it is, is closed', async () => {
  const before = openSockets();
  const [fd, peer] = pairs(1)[0]!;
  shutdownConnection(fd, 'both');
  const { fault } = await failureOf(Promise.resolve().then(() => announceChannel({ fd }, 1, undefined)));
  assert.deepEqual(fault, { code: 'DATAPLANE_LOST', channel: 1, offset: 0, errno: 'EPIPE' });
  closeAll([peer]);
  assert.equal(openSockets(), before);
});

test('a process that exits does not wait for peers', () => {
  const url = (path: string) => JSON.stringify(new URL(path, import.meta.url).href);
  const code = `
    import { ReceiveChannels, SendChannels } from ${url('../../src/dataplane/index.js')};
    import { pairs, ramOf } from ${url('./support.js')};
    const [[a, b], [c, d]] = pairs(2);
    const failed = () => {};
    const ram = ramOf(1024);
    Buffer.from(ram.blocks[0].memory).fill(1);
    await ReceiveChannels.start({ lines: [{ fd: a }], ram, compression: 'none', failed });
    const source = await SendChannels.start({ lines: [{ fd: c }], ram, compression: 'none', level: 0, findZeroPages: true, failed });
    for (let page = 0; page < 1024; page++) source.add(0, page);
    process.exit(7);`;
  const { status, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', code], {
    encoding: 'utf8',
    timeout: 20_000,
  });
  assert.equal(status, 7, stderr);
});
