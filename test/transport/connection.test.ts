/** What a connection's first bytes are, and that none is lost, whoever reads the rest. */
import assert from 'node:assert/strict';
import { closeSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import test, { type TestContext } from 'node:test';
import { setBlocking } from '../../src/native/index.ts';
import {
  type Address,
  type Channel,
  type Connection,
  connect,
  dial,
  isSocketAddress,
  listen,
  parseAddress,
} from '../../src/transport/index.ts';
import { hasCode } from '../contract/channel.ts';
import { receiveAll } from '../native/sockets.ts';

const LOOPBACK: Address = { kind: 'tcp', host: '127.0.0.1', port: 0 };
const MESSAGE = Buffer.from(Array.from({ length: 200 }, (_, i) => i));

async function pair(t: TestContext): Promise<{ peer: Channel; connection: Connection }> {
  const listener = await listen(LOOPBACK);
  const [peer, connection] = await Promise.all([connect(listener.address), listener.next()]);
  t.after(() => {
    peer.destroy();
    connection.destroy();
    listener.close();
  });
  return { peer, connection };
}

async function readAll(channel: Channel): Promise<Buffer> {
  const parts: Buffer[] = [];
  for (let chunk = await channel.read(); chunk !== null; chunk = await channel.read()) {
    parts.push(Buffer.from(chunk.bytes.subarray(chunk.start, chunk.end)));
  }
  return Buffer.concat(parts);
}

const atLeast = (count: number) => (bytes: Buffer) => bytes.length >= count;

test('no more than 64 bytes are looked at; the rest stays for who gets the descriptor', async (t) => {
  const { peer, connection } = await pair(t);
  await peer.write(MESSAGE);
  assert.deepEqual(await connection.firstBytes(() => false), MESSAGE.subarray(0, 64));
  const { fd } = connection.line();
  t.after(() => closeSync(fd));
  setBlocking(fd, true);
  assert.deepEqual(receiveAll(fd, MESSAGE.length - 64), MESSAGE.subarray(64));
  // The connection lives on, in both directions.
  writeSync(fd, 'back');
  const chunk = await peer.read();
  assert.equal(chunk?.bytes.toString('latin1', chunk.start, chunk.end), 'back');
});

test('bytes that come one by one are looked at until they are enough; a channel reads all of them', async (t) => {
  const { peer, connection } = await pair(t);
  const lengths: number[] = [];
  const looked = connection.firstBytes((bytes) => {
    lengths.push(bytes.length);
    return bytes.length >= 4;
  });
  for (let at = 0; at < 4; at++) {
    await peer.write(MESSAGE.subarray(at, at + 1));
    while (at < 3 && lengths.length <= at) await new Promise((resolve) => setImmediate(resolve));
  }
  assert.deepEqual(await looked, MESSAGE.subarray(0, 4));
  assert.deepEqual(lengths, [1, 2, 3, 4]);
  await peer.write(MESSAGE.subarray(4));
  await peer.end();
  assert.deepEqual(await readAll(connection.channel()), MESSAGE);
});

test('a channel that nobody looked at before reads all', async (t) => {
  const { peer, connection } = await pair(t);
  await peer.write(MESSAGE);
  await peer.end();
  const channel = connection.channel('main');
  assert.match(channel.label, /^main tcp:127\.0\.0\.1:\d+$/);
  assert.deepEqual(await readAll(channel), MESSAGE);
  assert.equal(channel.counters.bytesRead, MESSAGE.length);
});

test('a peer that ends, vanishes or is given up before it has said enough: what it has said', async (t) => {
  const ended = await pair(t);
  await ended.peer.write(MESSAGE.subarray(0, 3));
  await ended.peer.end();
  assert.deepEqual(await ended.connection.firstBytes(atLeast(4)), MESSAGE.subarray(0, 3));

  const vanished = await pair(t);
  const nothing = vanished.connection.firstBytes(atLeast(4));
  vanished.peer.destroy();
  assert.deepEqual(await nothing, Buffer.alloc(0));

  const silent = await pair(t);
  const waiting = silent.connection.firstBytes(atLeast(4));
  silent.connection.destroy();
  assert.deepEqual(await waiting, Buffer.alloc(0));
});

test('a connection that was made gives its descriptor away, and nothing that had come is lost', async (t) => {
  const listener = await listen(LOOPBACK);
  assert(isSocketAddress(listener.address));
  const [dialled, accepted] = await Promise.all([dial(listener.address), listener.accept()]);
  await accepted.write(MESSAGE);
  const { fd } = dialled.line();
  t.after(() => closeSync(fd));
  setBlocking(fd, true);
  assert.deepEqual(receiveAll(fd, MESSAGE.length), MESSAGE);
  accepted.destroy();
  listener.close();
});

test('an address with one peer has no connections to look at', async () => {
  const listener = await listen(parseAddress('exec:cat'));
  await assert.rejects(listener.next(), hasCode('TRANSPORT_ADDRESS'));
  listener.close();
});

/** Linux: SOL_SOCKET, SO_KEEPALIVE, IPPROTO_TCP, TCP_NODELAY. */
const OPTIONS = [
  ['SO_KEEPALIVE', 1, 9],
  ['TCP_NODELAY', 6, 1],
] as const;

test('both ends of a TCP connection send small messages at once, and notice a link that is dead', async (t) => {
  const listener = await listen(LOOPBACK);
  t.after(() => listener.close());
  const { address } = listener;
  assert.ok(isSocketAddress(address));
  const ends = (await Promise.all([dial(address), listener.next()])).map((one) => one.line());
  t.after(() => {
    for (const { fd } of ends) closeSync(fd);
  });
  const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi');
  const getsockopt = koffi.load('libc.so.6').func('int getsockopt(int, int, int, _Out_ int *, _Inout_ unsigned int *)');
  for (const { fd } of ends) {
    for (const [name, level, option] of OPTIONS) {
      const on = [0];
      assert.equal(getsockopt(fd, level, option, on, [4]), 0);
      assert.equal(on[0], 1, name);
    }
  }
});
