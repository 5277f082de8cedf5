import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { xbzrleDecode, xbzrleEncode } from '../../../src/wire/index.ts';
import { pattern } from '../samples.ts';
import { PAGE } from '../streams.ts';

const body = Buffer.alloc(2 * PAGE);

/** The format as its grammar says it, written as plainly as can be: what the fast code is held against. */
function applied(encoded: Buffer, old: Buffer): Buffer {
  const page = Buffer.from(old);
  let at = 0;
  let place = 0;
  const length = () => {
    const first = encoded[at++]!;
    return first < 128 ? first : (first & 127) + 128 * encoded[at++]!;
  };
  while (at < encoded.length) {
    place += length();
    for (let left = length(); left > 0; left--) page[place++] = encoded[at++]!;
  }
  return page;
}

/** A page with changes, most in clusters, some at the edges. */
const changes = fc.array(
  fc.record({
    at: fc.oneof(fc.integer({ min: 0, max: PAGE - 1 }), fc.constantFrom(0, 1, 3, 4, PAGE - 1, PAGE - 2, PAGE - 5)),
    length: fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 300 })),
    xor: fc.integer({ min: 1, max: 255 }),
    step: fc.integer({ min: 1, max: 6 }),
  }),
  { maxLength: 12 },
);

function changed(old: Buffer, list: readonly { at: number; length: number; xor: number; step: number }[]): Buffer {
  const now = Buffer.from(old);
  for (const { at, length, xor, step } of list) {
    for (let i = at; i < Math.min(PAGE, at + length); i += step) now[i]! ^= xor;
  }
  return now;
}

test('what is encoded is decoded, in place', () => {
  const old = pattern(3 * PAGE, 7);
  fc.assert(
    fc.property(changes, (list) => {
      const base = Buffer.from(old.subarray(PAGE, 2 * PAGE));
      const now = changed(base, list);
      const length = xbzrleEncode(old, PAGE, now, 0, PAGE, body, 16, 16 + PAGE);
      if (now.equals(base)) {
        assert.equal(length, 0);
        return;
      }
      if (length < 0) return;
      assert.ok(length > 0 && length <= PAGE);
      const encoded = body.subarray(16, 16 + length);
      assert.deepEqual(applied(encoded, base), now);
      const page = Buffer.from(base);
      assert.equal(xbzrleDecode(body, 16, length, page, PAGE), undefined);
      assert.deepEqual(page, now);
    }),
    { numRuns: 2000, seed: 20261123 },
  );
});

test('bytes', () => {
  const old = Buffer.alloc(PAGE);
  const encode = (list: Parameters<typeof changed>[1], limit = PAGE) => {
    const length = xbzrleEncode(old, 0, changed(old, list), 0, PAGE, body, 0, limit);
    return length < 0 ? undefined : body.toString('hex', 0, length);
  };
  const at = (place: number, length = 1, step = 1) => ({ at: place, length, xor: 0xab, step });
  assert.equal(encode([]), '');
  assert.equal(encode([at(0)]), '0001ab');
  assert.equal(encode([at(5)]), '0501ab');
  assert.equal(encode([at(PAGE - 1)]), 'ff1f01ab');
  assert.equal(encode([at(127)]), '7f01ab');
  assert.equal(encode([at(128)]), '800101ab');
  assert.equal(encode([at(1), at(7)]), '0101ab0501ab');
  assert.equal(encode([at(0, 200)]), '00c801' + 'ab'.repeat(200));
  // Two equal bytes between changes go along, three do not.
  assert.equal(encode([at(0, 4, 3)]), '0004ab0000ab');
  assert.equal(encode([at(0, 5, 4)]), '0001ab0301ab');
});

test('a page that does not fit is an overflow, and nothing behind the limit is touched', () => {
  const old = Buffer.alloc(PAGE);
  const now = Buffer.alloc(PAGE, 0x11);
  body.fill(0xee);
  assert.equal(xbzrleEncode(old, 0, now, 0, PAGE, body, 0, PAGE), -1);
  const half = changed(old, [{ at: 0, length: PAGE, xor: 1, step: 4 }]);
  for (const limit of [0, 1, 3, 4, 5, 100, 1000]) {
    body.fill(0xee);
    assert.equal(xbzrleEncode(old, 0, half, 0, PAGE, body, 0, limit), -1);
    assert.deepEqual(body.subarray(limit), Buffer.alloc(body.length - limit, 0xee));
  }
});

test('refused bodies', () => {
  for (const [bytes, reason] of [
    ['8080', 'a run length longer than two bytes'],
    ['80', 'a run length longer than two bytes'],
    ['00', 'a run without changes at the end'],
    ['0501ab05', 'a run without changes at the end'],
    ['0000', 'an empty change'],
    ['008000', 'an empty change'],
    ['0001ab0001ab', 'an empty run between changes'],
    ['0002ab', 'changes past the end of the body'],
    ['00ff', 'a run length longer than two bytes'],
    ['ff1f02abab', 'changes past the end of the page'],
    ['ff7f01ab', 'changes past the end of the page'],
  ] as const) {
    const from = Buffer.from(bytes, 'hex');
    assert.equal(xbzrleDecode(from, 0, from.length, Buffer.alloc(PAGE), PAGE), reason, bytes);
  }
});

test('no body writes outside the page', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 80 }), fc.integer({ min: 1, max: 64 }), (bytes, pageSize) => {
      const page = Buffer.alloc(pageSize + 300, 0xee);
      xbzrleDecode(Buffer.from(bytes), 0, bytes.length, page, pageSize);
      assert.deepEqual(page.subarray(pageSize), Buffer.alloc(300, 0xee));
    }),
    { numRuns: 3000, seed: 20261124 },
  );
});
