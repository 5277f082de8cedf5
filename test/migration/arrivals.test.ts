/** Who comes to a destination with multifd, in what order, and who is turned away. */
import assert from 'node:assert/strict';
import { closeSync } from 'node:fs';
import test, { type TestContext } from 'node:test';
import { explain, FerryError } from '../../src/base/index.ts';
import { Arrivals, type Arrived } from '../../src/migration/destination/arrivals.ts';
import { setBlocking } from '../../src/native/index.ts';
import { type Channel, connect, type Listener, listen } from '../../src/transport/index.ts';
import { encodeMultifdInitial } from '../../src/wire/index.ts';
import { receiveAll } from '../native/sockets.ts';

import { testSettings } from '../support/move.ts';

const QEVM = Buffer.from('5145564d00000003', 'hex');
const UUID = Buffer.from('00112233445566778899aabbccddeeff', 'hex');

interface Door {
  readonly listener: Listener;
  readonly arrivals: Arrivals;
  readonly all: Promise<Arrived>;
  readonly abort: AbortController;
  /** A new connection that says this. */
  comes(bytes: Uint8Array): Promise<Channel>;
}

async function open(t: TestContext, channels: number, uuid: Uint8Array | 'any' = UUID): Promise<Door> {
  const listener = await listen({ kind: 'tcp', host: '127.0.0.1', port: 0 });
  const abort = new AbortController();
  const arrivals = new Arrivals({
    listener,
    channels,
    uuid: uuid === 'any' ? undefined : uuid,
    settings: testSettings(),
    signal: abort.signal,
  });
  const all = arrivals.all();
  all.catch(() => {});
  const peers: Channel[] = [];
  t.after(async () => {
    for (const peer of peers) peer.destroy();
    abort.abort();
    listener.close();
    const arrived = await all.catch(() => undefined);
    arrived?.main.destroy();
    for (const { fd } of arrived?.channels ?? []) closeSync(fd);
  });
  return {
    listener,
    arrivals,
    all,
    abort,
    async comes(bytes) {
      const peer = await connect(listener.address);
      peers.push(peer);
      await peer.write(bytes);
      return peer;
    },
  };
}

const NO_UUID = new Uint8Array(16);
const channel = (id: number, uuid: Uint8Array = UUID) => encodeMultifdInitial(id, uuid);

/** Everybody says some more, which must not be lost. */
const more = (first: Uint8Array, tail: string) => Buffer.concat([first, Buffer.from(tail)]);

const ORDERS: readonly (readonly ('main' | number)[])[] = [
  ['main', 0, 1, 2],
  ['main', 2, 0, 1],
  [1, 'main', 2, 0],
  [2, 1, 0, 'main'],
];

for (const order of ORDERS) {
  test(`${order.join(', ')}: each is known, and what it goes on to say is not lost`, async (t) => {
    const door = await open(t, 3);
    for (const who of order) await door.comes(more(who === 'main' ? QEVM : channel(who), `from ${who}`));
    const { main, channels } = await door.all;
    const chunk = await main.read();
    assert.equal(chunk?.bytes.toString('latin1', chunk.start, chunk.end), `${QEVM.toString('latin1')}from main`);
    for (const [id, { fd }] of channels.entries()) {
      setBlocking(fd, true);
      assert.equal(receiveAll(fd, 6).toString(), `from ${id}`);
    }
  });
}

test('without multifd the first is the source, whatever it says', async (t) => {
  const door = await open(t, 0);
  await door.comes(Buffer.from('junk'));
  const { main, channels } = await door.all;
  assert.deepEqual(channels, []);
  assert.equal((await main.read())?.bytes.toString('latin1').includes('junk'), true);
});

test('the uuid of a VM that has none is zeros; a checkpoint takes any, but one', async (t) => {
  const none = await open(t, 1, NO_UUID);
  await none.comes(QEVM);
  await none.comes(channel(0, NO_UUID));
  await none.all;
  const any = await open(t, 2, 'any');
  await any.comes(channel(0));
  await any.comes(channel(1, NO_UUID));
  await assert.rejects(any.all, /uuid of multifd 1 does not match: 00112233-.* expected, [0-]{36} found/);
});

const WRONG: readonly [what: string, connections: readonly Uint8Array[], message: RegExp][] = [
  ['another VM', [QEVM, channel(0, Buffer.alloc(16, 7))], /uuid of multifd 0 does not match/],
  ['an id twice', [channel(1), channel(1)], /multifd 1 does not match: one channel of that id expected, a second one/],
  ['an id that is too high', [QEVM, channel(3)], /initial packet: channel id.*below 3.*3/],
  ['two main channels', [QEVM, QEVM], /main channel does not match: one expected, a second one found/],
  [
    'another version',
    [Buffer.concat([channel(0).subarray(0, 7), Buffer.from([2]), channel(0).subarray(8)])],
    /version/,
  ],
];

for (const [what, connections, message] of WRONG) {
  test(`${what}: refused at once, and everybody is sent away`, async (t) => {
    const door = await open(t, 3);
    const peers: Channel[] = [];
    for (const bytes of connections) peers.push(await door.comes(bytes));
    await assert.rejects(door.all, message);
    for (const peer of peers) assert.equal(await peer.read().catch(() => null), null);
  });
}

test('a channel that is lost inside its initial packet is a lost channel', async (t) => {
  const door = await open(t, 2);
  await door.comes(QEVM);
  (await door.comes(channel(1).subarray(0, 25))).destroy();
  await assert.rejects(door.all, (error) => error instanceof FerryError && error.code === 'WIRE_TRUNCATED');
});

test('strangers are turned away and told of, the source comes all the same', async (t) => {
  const door = await open(t, 2);
  assert.equal(door.arrivals.waitingFor, 'the source to connect: main and multifd 0, 1');
  const talker = await door.comes(Buffer.from('GET / HTTP/1.1\r\n\r\n'));
  assert.equal(await talker.read().catch(() => null), null);
  const short = await door.comes(Buffer.from('SSH'));
  await short.end();
  assert.equal(await short.read().catch(() => null), null);
  const silent = await door.comes(Buffer.alloc(0));
  await door.comes(channel(1));
  await door.comes(QEVM);
  while (!door.arrivals.waitingFor.includes('connect: multifd 0;'))
    await new Promise((resolve) => setImmediate(resolve));
  assert.equal(door.arrivals.waitingFor, 'the source to connect: multifd 0; 2 turned away that did not say so');
  await door.comes(channel(0));
  assert.equal((await door.all).channels.length, 2);
  assert.equal(await silent.read().catch(() => null), null, 'it is no longer waited for');
});

test('once one connection of the source is there the others have 15 s, and the error says who is missing', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const door = await open(t, 3);
  t.mock.timers.tick(60_000);
  await door.comes(QEVM);
  await door.comes(channel(2));
  while (!door.arrivals.waitingFor.endsWith('connect: multifd 0, 1'))
    await new Promise((resolve) => setImmediate(resolve));
  t.mock.timers.tick(14_999);
  t.mock.timers.tick(1);
  await assert.rejects(door.all, (error) => {
    assert(error instanceof FerryError && error.code === 'MIGRATION_DEADLINE');
    assert.match(explain(error), /15000 ms.*multifd 0, 1.*multifd-channels \(here 3\)/);
    return true;
  });
});

test('a stranger that says nothing is let go after 10 s', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const door = await open(t, 1);
  const silent = await door.comes(Buffer.alloc(0));
  const gone = silent.read().catch(() => null);
  await new Promise((resolve) => setImmediate(resolve));
  while (!door.arrivals.waitingFor.includes('1 turned away')) {
    t.mock.timers.tick(10_000);
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal(await gone, null);
});

test('nobody waits any longer when the wait is given up', async (t) => {
  const door = await open(t, 2);
  const main = await door.comes(QEVM);
  while (door.arrivals.waitingFor.includes('main')) await new Promise((resolve) => setImmediate(resolve));
  door.abort.abort(new Error('no more patience'));
  await assert.rejects(door.all, (error) => /no more patience/.test(explain(error)));
  assert.equal(await main.read().catch(() => null), null);
});
