/** The first 64 bytes of a channel: both directions, every cut, every wrong field. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Reader, STARVED } from '../../../src/base/index.ts';
import { decodeMultifdInitial, encodeMultifdInitial, type WireError } from '../../../src/wire/index.ts';

const UUID = Buffer.from('5c7e0f1a8d2b4c3e9f60718293a4b5c6', 'hex');
const BYTES = Buffer.from('1122334400000001' + UUID.toString('hex') + '03' + '00'.repeat(39), 'hex');

test('an initial packet, byte by byte', () => {
  assert.deepEqual(encodeMultifdInitial(3, UUID), BYTES);
  const reader = new Reader(BYTES, 'multifd ?');
  assert.deepEqual(decodeMultifdInitial(reader, 4), { uuid: Uint8Array.from(UUID), channel: 3 });
  assert.equal(reader.pos, 64);
  assert.deepEqual(decodeMultifdInitial(new Reader(encodeMultifdInitial(0, undefined)), 1).uuid, new Uint8Array(16));
});

test('a piece of it is not enough', () => {
  for (let length = 0; length < BYTES.length; length++) {
    const reader = new Reader(BYTES.subarray(0, length));
    assert.throws(
      () => decodeMultifdInitial(reader, 4),
      (thrown) => thrown === STARVED,
    );
    assert.equal(reader.pos, 0);
  }
});

for (const [field, at, value, channels] of [
  ['magic', 0, 0x51, 4],
  ['version', 7, 2, 4],
  ['channel id (multifd-channels)', 24, 3, 3],
  ['channel id (multifd-channels)', 24, 255, 255],
] as const) {
  test(`wrong ${field}, ${value}, is named`, () => {
    const bytes = Buffer.from(BYTES);
    bytes[at] = value;
    assert.throws(
      () => decodeMultifdInitial(new Reader(bytes, 'multifd ?', { origin: 1000 }), channels),
      ({ fault }: WireError) => {
        assert.ok(fault.code === 'WIRE_UNEXPECTED_VALUE');
        assert.deepEqual([fault.stream, fault.field, fault.offset], ['multifd ?', field, 1000 + (at & ~3)]);
        return true;
      },
    );
  });
}
