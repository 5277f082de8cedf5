/** The first bytes of one of several preempt channels: both directions, every cut, every wrong field. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { Reader, STARVED } from '../../../src/base/index.ts';
import { decodePreemptInitial, encodePreemptInitial, isWireError, type WireError } from '../../../src/wire/index.ts';

const BYTES = Buffer.from('564d465000010304', 'hex');

test('an initial packet, byte by byte', () => {
  assert.deepEqual(encodePreemptInitial(3, 4), BYTES);
  const reader = new Reader(Buffer.concat([BYTES, Buffer.alloc(9)]), 'preempt ?');
  assert.equal(decodePreemptInitial(reader, 4), 3);
  assert.equal(reader.pos, 8);
});

test('a piece of it is not enough', () => {
  for (let length = 0; length < BYTES.length; length++) {
    const reader = new Reader(BYTES.subarray(0, length));
    assert.throws(
      () => decodePreemptInitial(reader, 4),
      (thrown) => thrown === STARVED,
    );
    assert.equal(reader.pos, 0);
  }
});

for (const [field, at, value, offset] of [
  ['magic', 0, 0x51, 0],
  ['version', 5, 2, 4],
  ['channels', 7, 3, 7],
  ['channel id', 6, 4, 6],
] as const) {
  test(`wrong ${field}, ${value}, is named`, () => {
    const bytes = Buffer.from(BYTES);
    bytes[at] = value;
    assert.throws(
      () => decodePreemptInitial(new Reader(bytes, 'preempt ?', { origin: 1000 }), 4),
      ({ fault }: WireError) => {
        assert.ok(fault.code === 'WIRE_UNEXPECTED_VALUE');
        assert.deepEqual([fault.stream, fault.field, fault.offset], ['preempt ?', field, 1000 + offset]);
        return true;
      },
    );
  });
}

test('whatever bytes come, the outcome is a channel that there is, or an error', () => {
  const bytes = fc.uint8Array({ maxLength: 12 }).map((some) => Buffer.concat([BYTES.subarray(0, 4), some]));
  fc.assert(
    fc.property(
      fc.oneof(bytes, fc.uint8Array({ maxLength: 12 })),
      fc.integer({ min: 2, max: 16 }),
      (some, channels) => {
        try {
          assert.ok(decodePreemptInitial(new Reader(Buffer.from(some)), channels) < channels);
        } catch (thrown) {
          assert.ok(thrown === STARVED || isWireError(thrown), String(thrown));
        }
      },
    ),
  );
});
