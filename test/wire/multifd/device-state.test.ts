/** Packets of device state: both directions, every wrong field. */
import assert from 'node:assert/strict';
import test from 'node:test';
import {
  decodeMultifdDeviceState,
  encodeMultifdDeviceState,
  MULTIFD_DEVICE_PAYLOAD_BYTES_MAX,
  MULTIFD_FLAG,
  multifdPacketFlags,
  type WireError,
} from '../../../src/wire/index.ts';

const HEADER = { idstr: '0000:00:03.0/vfio', instance: 7, payloadBytes: 1_048_588 };
const place = { stream: 'multifd 1', origin: 64 };

test('a device state header, byte by byte', () => {
  const bytes = encodeMultifdDeviceState(HEADER);
  const name = Buffer.from(HEADER.idstr).toString('hex');
  assert.equal(
    bytes.toString('hex'),
    '112233440000000100000040' + name + '00'.repeat(256 - HEADER.idstr.length) + '0000000700' + '10000c',
  );
  assert.equal(multifdPacketFlags(place, bytes), MULTIFD_FLAG.DEVICE_STATE);
  assert.deepEqual(decodeMultifdDeviceState(place, bytes), HEADER);
  const longest = { ...HEADER, idstr: 'x'.repeat(255) };
  assert.deepEqual(decodeMultifdDeviceState(place, encodeMultifdDeviceState(longest)), longest);
});

const damages: readonly [string, (bytes: Buffer) => void, number][] = [
  ['flags', (bytes) => bytes.writeUInt32BE(0x41, 8), 8],
  ['flags', (bytes) => bytes.writeUInt32BE(0x42, 8), 8],
  ['flags', (bytes) => bytes.writeUInt32BE(0, 8), 8],
  ['idstr', (bytes) => bytes.fill('y', 12, 268), 12],
  ['idstr', (bytes) => bytes.fill(0, 12, 268), 12],
  ['idstr', (bytes) => bytes.fill(7, 12, 13), 12],
  ['next_packet_size', (bytes) => bytes.writeUInt32BE(0, 272), 272],
  ['next_packet_size', (bytes) => bytes.writeUInt32BE(MULTIFD_DEVICE_PAYLOAD_BYTES_MAX + 1, 272), 272],
];

for (const [index, [field, damage, at]] of damages.entries()) {
  test(`damage ${index}: wrong ${field} is named`, () => {
    const bytes = encodeMultifdDeviceState(HEADER);
    damage(bytes);
    assert.throws(
      () => decodeMultifdDeviceState(place, bytes),
      ({ fault }: WireError) => {
        assert.ok('field' in fault);
        assert.deepEqual([fault.stream, fault.field, fault.offset], ['multifd 1', field, 64 + at]);
        return true;
      },
    );
  });
}
