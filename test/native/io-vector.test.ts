/** Memory to socket and socket to memory, in pieces; files past the page cache. */
import assert from 'node:assert/strict';
import { closeSync, constants, mkdtempSync, readFileSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import fc from 'fast-check';
import {
  addressOf,
  alignedBuffer,
  DIRECT_IO_ALIGNMENT,
  IoVector,
  NativeError,
  nameThread,
  openDirect,
  setBlocking,
  threadId,
} from '../../src/native/index.ts';
import { closeAll, socketPair } from './sockets.ts';

function pair(t: TestContext): [number, number] {
  const fds = socketPair();
  t.after(() => closeAll(fds));
  return fds;
}

function shared(length: number): Buffer {
  return Buffer.from(new SharedArrayBuffer(length));
}

test('a list counts its pieces and its bytes', () => {
  const vector = new IoVector(8);
  vector.push(0x1000, 10);
  vector.extend(5);
  vector.push(0x2000, 1);
  assert.deepEqual([vector.count, vector.byteLength], [2, 16]);
  vector.clear();
  assert.deepEqual([vector.count, vector.byteLength], [0, 0]);
});

test('pieces go out and come in in order, whatever portions the kernel takes', (t) => {
  const [a, b] = pair(t);
  setBlocking(a, false);
  setBlocking(b, false);
  const memory = shared(1 << 20);
  for (let i = 0; i < memory.length; i += 4) memory.writeUInt32LE(i, i);
  const arrived = shared(1 << 20);
  const piece = fc.record({ at: fc.integer({ min: 0, max: 900_000 }), length: fc.integer({ min: 1, max: 60_000 }) });
  const out = new IoVector(40);
  const into = new IoVector(40);
  const property = fc.property(
    fc.array(piece, { minLength: 1, maxLength: 16 }),
    fc.array(fc.integer({ min: 1, max: 50_000 }), { minLength: 1, maxLength: 16 }),
    (pieces, cuts) => {
      out.clear();
      into.clear();
      for (const { at, length } of pieces) out.push(addressOf(memory) + at, length);
      const total = out.byteLength;
      // Every other place, so that no two pieces are neighbours.
      let place = 0;
      for (let i = 0, left = total; left > 0; i++) {
        const length = i < 16 ? Math.min(left, cuts[i % cuts.length]!) : left;
        into.push(addressOf(arrived) + place, length);
        place += length;
        left -= length;
      }
      const eager = (move: () => number) => {
        try {
          return move();
        } catch (thrown) {
          if (thrown instanceof NativeError && thrown.message.endsWith('EAGAIN')) return 0;
          throw thrown;
        }
      };
      while (into.byteLength > 0) {
        if (out.byteLength > 0) eager(() => out.send(a));
        eager(() => into.receive(b));
      }
      assert.equal(out.byteLength, 0);
      const expected = Buffer.concat(pieces.map(({ at, length }) => memory.subarray(at, at + length)));
      assert.ok(expected.equals(arrived.subarray(0, total)));
    },
  );
  fc.assert(property, { seed: 20261122, numRuns: 50 });
});

test('a read returns 0 at the end, failures have their names', (t) => {
  const [a, b] = pair(t);
  const memory = shared(64);
  const vector = new IoVector(2);
  vector.push(addressOf(memory), 64);
  writeSync(a, 'abc');
  closeSync(a);
  assert.equal(vector.receive(b), 3);
  assert.equal(vector.byteLength, 61);
  assert.equal(vector.receive(b), 0);
  assert.equal(memory.toString('latin1', 0, 3), 'abc');
  for (const [move, fd, fault] of [
    [() => vector.send(b), b, { code: 'NATIVE_CALL', call: 'writev', errno: 'EPIPE' }],
    [() => vector.receive(999_999), b, { code: 'NATIVE_CALL', call: 'readv', errno: 'EBADF' }],
  ] as const) {
    assert.throws(move, (thrown: NativeError) => {
      assert.deepEqual(thrown.fault, fault, String(fd));
      return true;
    });
  }
});

test('aligned memory and files past the page cache', (t) => {
  for (const length of [1, 4096, 100_000]) {
    const bytes = alignedBuffer(length);
    assert.equal(bytes.length, length);
    assert.equal(addressOf(bytes) % DIRECT_IO_ALIGNMENT, 0);
    assert.ok(bytes.buffer instanceof SharedArrayBuffer);
  }
  const folder = mkdtempSync(join(tmpdir(), 'vmferry-direct-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'file');
  const fd = openDirect(path, constants.O_RDWR | constants.O_CREAT);
  if (fd === undefined) return t.skip('no O_DIRECT in the temporary folder');
  t.after(() => closeAll([fd]));
  const bytes = alignedBuffer(8192).fill(0x5a);
  assert.equal(writeSync(fd, bytes, 0, 8192, 4096), 8192);
  const back = alignedBuffer(8192);
  assert.equal(readSync(fd, back, 0, 8192, 4096), 8192);
  assert.ok(back.equals(bytes));
  assert.throws(() => writeSync(fd, bytes, 1, 100, 0), { code: 'EINVAL' });
});

test('threads have a number and a name', () => {
  assert.equal(threadId(), process.pid);
  const before = readFileSync('/proc/self/comm', 'latin1').trim();
  nameThread('mig/src/send_255');
  assert.equal(readFileSync('/proc/thread-self/comm', 'latin1').trim(), 'mig/src/send_25');
  nameThread(before);
});
