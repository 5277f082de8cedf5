/** Packets of device state: both directions, every wrong field. */
import assert from 'node:assert/strict';
import test from 'node:test';
import {
  DeviceStateDecoder,
  deviceStateHeader,
  MULTIFD_DEVICE_BYTES_MAX,
  MULTIFD_FLAG,
  multifdPacketFlags,
  type WireError,
  writeDeviceBuffer,
} from '../../../src/wire/index.ts';

const DEVICES = [
  { idstr: '0000:00:03.0/vfio', instance: 7 },
  { idstr: '0000:00:03.0/vfi', instance: 7 },
  { idstr: '0000:00:03.0/vfio', instance: 0 },
  { idstr: 'x'.repeat(255), instance: 0xffffffff },
];
const place = { stream: 'multifd 1', origin: 64 };

function headerOf(device: number, index: number, isConfig: boolean, stateBytes: number): Buffer {
  const header = deviceStateHeader(DEVICES[device]!);
  writeDeviceBuffer(header, index, isConfig, stateBytes);
  return header;
}

test('the headers, byte by byte', () => {
  const bytes = headerOf(0, 3, true, MULTIFD_DEVICE_BYTES_MAX);
  const name = Buffer.from(DEVICES[0]!.idstr).toString('hex');
  assert.equal(
    bytes.toString('hex'),
    `112233440000000100000040${name}${'00'.repeat(256 - DEVICES[0]!.idstr.length)}000000070010000c000000000000000300000001`,
  );
  assert.equal(multifdPacketFlags(place, bytes), MULTIFD_FLAG.DEVICE_STATE);
});

test('what was written is read, for every device', () => {
  const decoder = new DeviceStateDecoder(DEVICES);
  for (const device of DEVICES.keys()) {
    for (const [index, isConfig, stateBytes] of [
      [0, false, 0],
      [0xfffffffe, true, 1],
      [5, false, MULTIFD_DEVICE_BYTES_MAX],
    ] as const) {
      decoder.decode(place, headerOf(device, index, isConfig, stateBytes));
      assert.deepEqual(
        [decoder.device, decoder.index, decoder.isConfig, decoder.stateBytes],
        [device, index, isConfig, stateBytes],
      );
    }
  }
});

const damages: readonly [field: string, damage: (bytes: Buffer) => void, at: number, code: string][] = [
  ['flags', (bytes) => bytes.writeUInt32BE(0x41, 8), 8, 'WIRE_UNEXPECTED_VALUE'],
  ['flags', (bytes) => bytes.writeUInt32BE(0x42, 8), 8, 'WIRE_UNEXPECTED_VALUE'],
  ['flags', (bytes) => bytes.writeUInt32BE(0, 8), 8, 'WIRE_UNEXPECTED_VALUE'],
  ['idstr', (bytes) => bytes.fill('y', 12, 268), 12, 'WIRE_UNEXPECTED_VALUE'],
  ['device', (bytes) => bytes.fill(0, 12, 268), 12, 'WIRE_UNEXPECTED_VALUE'],
  ['device', (bytes) => bytes.fill(7, 12, 13), 12, 'WIRE_UNEXPECTED_VALUE'],
  ['device', (bytes) => bytes.writeUInt32BE(8, 268), 12, 'WIRE_UNEXPECTED_VALUE'],
  ['next_packet_size', (bytes) => bytes.writeUInt32BE(0, 272), 272, 'WIRE_UNEXPECTED_VALUE'],
  ['next_packet_size', (bytes) => bytes.writeUInt32BE(11, 272), 272, 'WIRE_UNEXPECTED_VALUE'],
  ['next_packet_size', (bytes) => bytes.writeUInt32BE(MULTIFD_DEVICE_BYTES_MAX + 13, 272), 272, 'WIRE_LIMIT'],
  ['next_packet_size', (bytes) => bytes.writeUInt32BE(0xffffffff, 272), 272, 'WIRE_LIMIT'],
  ['', (bytes) => bytes.writeUInt32BE(1, 276), 276, 'WIRE_UNSUPPORTED'],
  ['index', (bytes) => bytes.writeUInt32BE(0xffffffff, 280), 280, 'WIRE_UNEXPECTED_VALUE'],
  ['', (bytes) => bytes.writeUInt32BE(2, 284), 284, 'WIRE_UNSUPPORTED'],
  ['', (bytes) => bytes.writeUInt32BE(0x80000001, 284), 284, 'WIRE_UNSUPPORTED'],
];

for (const [index, [field, damage, at, code]] of damages.entries()) {
  test(`damage ${index}: what is wrong at ${at} is named`, () => {
    const bytes = headerOf(0, 3, false, 1000);
    damage(bytes);
    assert.throws(
      () => new DeviceStateDecoder(DEVICES).decode(place, bytes),
      ({ fault }: WireError) => {
        assert.deepEqual([fault.code, fault.stream, fault.offset], [code, 'multifd 1', 64 + at]);
        if (field !== '') assert.ok('field' in fault && fault.field === field);
        return true;
      },
    );
  });
}
