import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { StreamInput } from '../../../src/wire/index.ts';
import { pattern } from '../samples.ts';
import { chunks, faultOf } from '../streams.ts';

test('whatever is taken out when, the bytes come in order and at their offsets', () => {
  const bytes = pattern(200_000, 7);
  const sizes = fc.oneof(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 1, max: 40_000 }));
  fc.assert(
    fc.property(fc.infiniteStream(sizes), fc.infiniteStream(fc.oneof(sizes, fc.constant(0))), (pieces, takes) => {
      const input = new StreamInput('test', { origin: 5000 });
      const taken: Buffer[] = [];
      let total = 0;
      const take = (count: number) => {
        assert.equal(input.reader.offset, 5000 + total);
        const view = input.reader.view(Math.min(count, input.reader.available));
        taken.push(Buffer.from(view));
        total += view.length;
      };
      for (const chunk of chunks(bytes, running(pieces))) {
        input.add(chunk);
        assert.equal(input.reader.offset, 5000 + total);
        take(takes.next().value!);
        // From here on the chunk's buffer is filled again.
        input.release();
      }
      take(Infinity);
      assert.ok(Buffer.concat(taken).equals(bytes));
    }),
    { numRuns: 100, seed: 20261126 },
  );

  function* running(pieces: Iterable<number>): Generator<number> {
    let at = 0;
    for (const piece of pieces) {
      at += piece;
      if (at >= bytes.length) return;
      yield at;
    }
  }
});

test('a chunk is read where it lies when the tail fits in front of it', () => {
  const input = new StreamInput('test');
  const first = Buffer.alloc(20_000);
  input.add({ bytes: first, start: 8192, end: 20_000 });
  assert.equal(input.reader.bytes, first);
  input.reader.skip(10_000);
  const second = Buffer.alloc(20_000);
  input.add({ bytes: second, start: 8192, end: 20_000 });
  assert.equal(input.reader.bytes, second);
  assert.equal(input.reader.available, 1808 + 11_808);
  assert.equal(input.reader.pos, 8192 - 1808);
});

test('unread bytes are bounded', () => {
  const input = new StreamInput('test', { bytesMax: 100_000 });
  const chunk = { bytes: Buffer.alloc(50_000), start: 8192, end: 50_000 };
  input.add(chunk);
  input.add(chunk);
  const fault = faultOf(() => input.add(chunk));
  assert.equal(fault.code, 'WIRE_LIMIT');
});

test('a large private buffer is given back', () => {
  const input = new StreamInput('test');
  const big = { bytes: Buffer.alloc(3_000_000), start: 0, end: 3_000_000 };
  input.add(big);
  input.add(big);
  const large = input.reader.bytes;
  assert.ok(large.length >= 6_000_000);
  input.reader.skip(6_000_000 - 10);
  const small = { bytes: Buffer.alloc(10_000), start: 8192, end: 10_000 };
  input.add(small);
  assert.equal(input.reader.bytes, small.bytes);
  input.release();
  assert.ok(input.reader.bytes.length < 1_000_000);
  assert.equal(input.reader.offset, 6_000_000 - 10);
});

test('seek forgets what is unread', () => {
  const input = new StreamInput('test');
  input.add({ bytes: Buffer.alloc(100), start: 0, end: 100 });
  input.seek(1_000_000);
  assert.equal(input.reader.offset, 1_000_000);
  assert.equal(input.reader.available, 0);
  input.add({ bytes: Buffer.from('abc'), start: 0, end: 3 });
  assert.equal(input.reader.view(3).toString(), 'abc');
  assert.equal(input.reader.offset, 1_000_003);
});
