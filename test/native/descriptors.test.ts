/** Descriptors as threads share them out: duplicates, blocking, shutting down, looking without taking. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { closeSync, readlinkSync, readSync, writeSync } from 'node:fs';
import test, { type TestContext } from 'node:test';
import { Worker } from 'node:worker_threads';
import { duplicate, NativeError, POLL, peek, poll, setBlocking, shutdownConnection } from '../../src/native/index.ts';
import { closeAll, isOpen, socketPair, tcpPair } from './sockets.ts';

function pair(t: TestContext): [number, number] {
  const fds = socketPair();
  t.after(() => closeAll(fds));
  return fds;
}

const failsWith = (call: string, errno: string) => (thrown: unknown) => {
  assert.ok(thrown instanceof NativeError);
  assert.deepEqual(thrown.fault, { code: 'NATIVE_CALL', call, errno });
  return true;
};

function receive(fd: number, length: number): string {
  const bytes = Buffer.alloc(length);
  return bytes.toString('latin1', 0, readSync(fd, bytes));
}

test('a duplicate is the same connection and lives longer than the first number', (t) => {
  const [a, b] = pair(t);
  const twin = duplicate(a);
  t.after(() => closeAll([twin]));
  assert.ok(twin > 2 && twin !== a);
  closeSync(a);
  writeSync(twin, 'still here');
  assert.equal(receive(b, 100), 'still here');
  closeSync(twin);
  assert.equal(receive(b, 100), '');
  assert.throws(() => duplicate(a), failsWith('fcntl F_DUPFD_CLOEXEC', 'EBADF'));
});

test('a duplicate is not inherited', (t) => {
  const [a] = pair(t);
  const twin = duplicate(a);
  t.after(() => closeAll([twin]));
  const { stdout } = spawnSync('ls', ['-l', '/proc/self/fd'], { encoding: 'latin1' });
  assert.ok(!stdout.includes(readlinkSync(`/proc/self/fd/${twin}`)), stdout);
});

test('blocking belongs to the connection: a duplicate changes it for all', (t) => {
  const [a] = pair(t);
  const twin = duplicate(a);
  t.after(() => closeAll([twin]));
  setBlocking(twin, false);
  assert.throws(() => receive(a, 1), { code: 'EAGAIN' });
  setBlocking(a, true);
  setBlocking(a, true);
  shutdownConnection(twin, 'read');
  assert.equal(receive(a, 1), '');
});

test('peek shows what has come and leaves it there', (t) => {
  const [a, b] = pair(t);
  assert.equal(peek(b, 4), undefined);
  writeSync(a, 'QEVM and more');
  assert.equal(peek(b, 4)?.toString(), 'QEVM');
  assert.equal(receive(b, 100), 'QEVM and more');
  shutdownConnection(a, 'write');
  assert.equal(peek(b, 4)?.length, 0);
});

test('poll tells what may be done and what has happened', (t) => {
  const [a, b] = pair(t);
  assert.equal(poll(b, POLL.IN, 0), 0);
  assert.equal(poll(b, POLL.OUT, -1), POLL.OUT);
  writeSync(a, 'x');
  assert.equal(poll(b, POLL.IN, -1), POLL.IN);
  closeSync(a);
  assert.equal(poll(b, POLL.RDHUP, -1) & POLL.RDHUP, POLL.RDHUP);
});

test('shutting down wakes a thread that waits in the kernel, through any duplicate', async (t) => {
  for (const fds of [socketPair(), await tcpPair()]) {
    t.after(() => closeAll(fds));
    setBlocking(fds[0], true);
    const code = `
      const { readSync } = require('node:fs');
      const { parentPort, workerData } = require('node:worker_threads');
      parentPort.postMessage('waiting');
      parentPort.postMessage(readSync(workerData, Buffer.alloc(1)));`;
    const thread = new Worker(code, { eval: true, workerData: fds[0] });
    const said: unknown[] = [];
    const woken = new Promise((resolve) =>
      thread.on('message', (message) => said.push(message) === 2 && resolve(message)),
    );
    const twin = duplicate(fds[0]);
    t.after(() => closeAll([twin]));
    await new Promise((resolve) => thread.once('online', resolve));
    shutdownConnection(twin, 'both');
    assert.equal(await woken, 0);
    await thread.terminate();
  }
});

test('what has arrived can still be read after the reading side was shut down; writing ends with EPIPE', async (t) => {
  const [a, b] = await tcpPair();
  t.after(() => closeAll([a, b]));
  setBlocking(b, true);
  writeSync(a, 'last words');
  assert.equal(poll(b, POLL.IN, 5_000), POLL.IN);
  shutdownConnection(b, 'both');
  assert.equal(receive(b, 100), 'last words');
  assert.equal(receive(b, 100), '');
  assert.throws(() => writeSync(b, 'x'), { code: 'EPIPE' });
  closeSync(a);
  shutdownConnection(b, 'both');
  assert.throws(() => shutdownConnection(999_999, 'both'), failsWith('shutdown', 'EBADF'));
});

test("Node's sockets give their connections away", async () => {
  const fds = await tcpPair();
  setBlocking(fds[0], true);
  setBlocking(fds[1], true);
  // Another turn of the event loop: the sockets are destroyed by now.
  await new Promise((resolve) => setImmediate(resolve));
  writeSync(fds[0], 'to b');
  assert.equal(receive(fds[1], 100), 'to b');
  writeSync(fds[1], 'to a');
  assert.equal(receive(fds[0], 100), 'to a');
  closeAll(fds);
  assert.ok(!fds.some(isOpen));
});
