/** Options that only make a TCP connection faster: they take, and elsewhere they do nothing. */
import assert from 'node:assert/strict';
import { writeSync } from 'node:fs';
import test from 'node:test';
import { acknowledgeNow, bytesInKernel, limitUnsent } from '../../src/native/index.ts';
import { closeAll, receiveAll, socketPair, tcpPair } from './sockets.ts';

test('tcp: both options take, and what waits in the kernel can be told', async (t) => {
  const [a, b] = await tcpPair();
  t.after(() => closeAll([a, b]));
  assert.equal(acknowledgeNow(a), true);
  assert.equal(limitUnsent(a, 64 * 1024), true);
  assert.equal(bytesInKernel(a), 0);
});

test('tcp: with a limit a sender whose peer does not read is stopped earlier', async (t) => {
  const filled = async (limit: number) => {
    const [a, b] = await tcpPair();
    t.after(() => closeAll([a, b]));
    if (limit > 0) assert.equal(limitUnsent(a, limit), true);
    const piece = Buffer.alloc(16 * 1024, 1);
    let sent = 0;
    try {
      for (;;) sent += writeSync(a, piece);
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, 'EAGAIN');
    }
    const waiting = bytesInKernel(a);
    assert.ok(waiting > 0 && waiting <= sent, `${waiting} of ${sent} bytes wait`);
    return { sent, unsent: waiting };
  };
  const free = await filled(0);
  const limited = await filled(32 * 1024);
  assert.ok(limited.sent < free.sent, `${limited.sent} bytes with a limit, ${free.sent} without`);
});

test('elsewhere nothing happens: a unix socket, a closed descriptor', (t) => {
  const fds = socketPair();
  t.after(() => closeAll(fds));
  for (const fd of [fds[0], -1]) {
    assert.equal(acknowledgeNow(fd), false);
    assert.equal(limitUnsent(fd, 1), false);
  }
  assert.equal(bytesInKernel(-1), -1);
  writeSync(fds[0], 'x');
  assert.equal(receiveAll(fds[1], 1).toString(), 'x');
});
