import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { connect as netConnect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after } from 'node:test';
import { type Address, type Channel, connect, isExposed, listen, parseAddress } from '../../src/transport/index.ts';
import { hasCode } from '../contract/channel.ts';

const folder = mkdtempSync(join(tmpdir(), 'vmferry-listener-'));
after(() => rmSync(folder, { recursive: true }));
const LOOPBACK: Address = { kind: 'tcp', host: '127.0.0.1', port: 0 };

test('port 0 becomes the real port, and peers are accepted in the order in which they come', async () => {
  const listener = await listen(LOOPBACK, { role: 'multifd 3' });
  assert(listener.address.kind === 'tcp' && listener.address.port > 0);
  const early = await connect(listener.address);
  await early.write(Buffer.from('1'));
  const first = await listener.accept();
  assert.match(first.label, /^multifd 3 tcp:127\.0\.0\.1:\d+$/);
  const waiting = listener.accept();
  const late = await connect(listener.address);
  await late.write(Buffer.from('2'));
  const second = await waiting;
  assert.deepEqual([await text(first), await text(second)], ['1', '2']);
  for (const channel of [early, late, first, second]) channel.destroy();
  listener.close();
  await assert.rejects(connect(listener.address), hasCode('TRANSPORT_REFUSED'));
});

test('closing ends those who wait, and turns away those who were not accepted', async () => {
  const listener = await listen(LOOPBACK);
  const waiting = assert.rejects(listener.accept(), hasCode('TRANSPORT_CLOSED'));
  listener.close();
  listener.close();
  await waiting;
  await assert.rejects(listener.accept(), hasCode('TRANSPORT_CLOSED'));

  const other = await listen(LOOPBACK);
  const peer = await connect(other.address);
  const beyond = await connect(other.address);
  (await other.accept()).destroy();
  other.close();
  assert.equal(await beyond.read().catch(() => null), null);
  peer.destroy();
  beyond.destroy();
});

test('a signal ends the wait for one peer, or the listener', async () => {
  const abort = new AbortController();
  const listener = await listen(LOOPBACK, { signal: abort.signal });
  const one = new AbortController();
  const reason = new Error('no more patience');
  const waiting = assert.rejects(listener.accept(one.signal), (error: Error) => error.cause === reason);
  one.abort(reason);
  await waiting;
  await assert.rejects(listener.accept(AbortSignal.abort()), hasCode('TRANSPORT_CLOSED'));
  // The place of the one that gave up is free.
  const next = listener.accept();
  const peer = await connect(listener.address);
  (await next).destroy();
  peer.destroy();
  const all = assert.rejects(listener.accept(), hasCode('TRANSPORT_CLOSED'));
  abort.abort();
  await all;
});

test('a port in use is refused with its name', async () => {
  const listener = await listen(LOOPBACK);
  await assert.rejects(
    listen(listener.address),
    (error: Error) => hasCode('TRANSPORT_REFUSED')(error) && /EADDRINUSE/.test(error.message),
  );
  listener.close();
});

test('a socket that its owner left behind is replaced; close removes ours', async () => {
  const path = join(folder, 'stale');
  const program = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
  await once(spawn(process.execPath, ['-e', program]), 'exit');
  assert.ok(existsSync(path));
  const listener = await listen({ kind: 'unix', path });
  const peer = await connect({ kind: 'unix', path });
  const channel = await listener.accept();
  await peer.write(Buffer.from('hello'));
  assert.equal(await text(channel), 'hello');
  peer.destroy();
  channel.destroy();
  listener.close();
  assert.ok(!existsSync(path));
});

test('a socket that somebody listens on is not taken away, nor disturbed', async () => {
  const path = join(folder, 'live');
  const listener = await listen({ kind: 'unix', path });
  await assert.rejects(listen({ kind: 'unix', path }), hasCode('TRANSPORT_REFUSED'));
  const waiting = listener.accept();
  const peer = await connect({ kind: 'unix', path });
  await peer.write(Buffer.from('first'));
  assert.equal(await text(await waiting), 'first');
  peer.destroy();
  listener.close();
});

test('nothing but a socket is removed', async () => {
  const path = join(folder, 'precious');
  writeFileSync(path, 'x');
  await assert.rejects(listen({ kind: 'unix', path }), hasCode('TRANSPORT_ADDRESS'));
  symlinkSync(path, join(folder, 'link'));
  await assert.rejects(listen({ kind: 'unix', path: join(folder, 'link') }), hasCode('TRANSPORT_ADDRESS'));
  assert.ok(existsSync(path));
});

test('a connection that is reset before it is accepted harms nobody', async () => {
  const listener = await listen(LOOPBACK);
  assert(listener.address.kind === 'tcp');
  const socket = netConnect(listener.address.port, '127.0.0.1');
  await once(socket, 'connect');
  socket.resetAndDestroy();
  const peer = await connect(listener.address);
  await peer.write(Buffer.from('x'));
  const channels = [await listener.accept(), await listener.accept()];
  const ends = await Promise.allSettled(channels.map((channel) => channel.read()));
  assert.deepEqual(ends.map((end) => end.status).sort(), ['fulfilled', 'rejected']);
  for (const channel of [...channels, peer]) channel.destroy();
  listener.close();
});

test('an address with one peer gives it once', async () => {
  const listener = await listen(parseAddress('exec:echo hello'));
  const channel = await listener.accept();
  assert.equal(await text(channel), 'hello\n');
  await assert.rejects(listener.accept(), hasCode('TRANSPORT_CLOSED'));
  channel.destroy();
  await channel.closed;

  const unused = await listen(parseAddress('exec:sleep 1000'));
  unused.close();
  await assert.rejects(unused.accept(), hasCode('TRANSPORT_CLOSED'));
});

/** What has come so far, at least one chunk. */
async function text(channel: Channel): Promise<string> {
  const chunk = await channel.read();
  return chunk === null ? '' : chunk.bytes.toString('latin1', chunk.start, chunk.end);
}

const EXPOSED: readonly [uri: string, exposed: boolean][] = [
  ['tcp::4444', true],
  ['tcp:0.0.0.0:4444', true],
  ['tcp:[::]:4444', true],
  ['tcp:192.0.2.1:4444', true],
  ['tcp:127.evil.example:4444', true],
  ['tcp:127.0.0.1:4444', false],
  ['tcp:127.1.2.3:4444', false],
  ['tcp:localhost:4444', false],
  ['tcp:[::1]:4444', false],
  ['unix:/run/vm.sock', false],
  ['fd:3', false],
];

for (const [uri, exposed] of EXPOSED)
  test(`${uri}: ${exposed ? 'open to other machines' : 'for this machine only'}`, () => {
    assert.equal(isExposed(parseAddress(uri)), exposed);
  });
