import assert from 'node:assert/strict';
import test from 'node:test';
import { COLOURS, deviceJson, deviceText, type Inspection, PLAIN, reportText } from '../../src/inspect/index.ts';
import { fixture } from '../wire/streams.ts';
import { inspectBytes, type MadeDevice, streamOf } from './files.ts';

const ALL = () => true;

async function firstDevice(device: MadeDevice) {
  const inspection = await inspectBytes(streamOf({ a: device }));
  for await (const found of inspection.devices()) return found;
  throw new Error('no device');
}

const leaf = (name: string, type: string, size: number, more = {}) => ({ name, type, size, ...more });

test('a device down to its fields', async () => {
  const element = { vmsd_name: 'queue', version: 1, fields: [leaf('head', 'uint16', 2)] };
  const device = await firstDevice({
    described: {
      vmsd_name: 'a',
      version: 1,
      fields: [
        leaf('count', 'uint32', 4),
        leaf('delta', 'int16', 2),
        leaf('on', 'bool', 1),
        leaf('timer', 'timer', 8),
        leaf('table', 'uint8', 1, { array_len: 10 }),
        leaf('zeros', 'uint16', 2, { array_len: 4 }),
        leaf('blob', 'buffer', 30),
        leaf('queue', 'ptr-marker', 1),
        { name: 'queue', type: 'struct', struct: element, size: 2 },
        leaf('queue', 'ptr-marker', 1),
        leaf('queue', 'ptr-marker', 1),
        leaf('esc\x1b[2J', 'uint8', 1),
      ],
    },
    body: Buffer.from(
      `00000102${'fffe'}01${'ff'.repeat(8)}${'0102030405060708090a'}${'00'.repeat(8)}${'ab'.repeat(30)}31${'0003'}3030${'05'}`,
      'hex',
    ),
  });
  const lines = deviceText(device, PLAIN).split('\n');
  assert.match(lines[0]!, /^a {2}instance 0, version 1, \d+ bytes at 0x/);
  assert.deepEqual(lines.slice(1), [
    '  count        0x102 (258)  uint32',
    '  delta        -2  int16',
    '  on           true  bool',
    '  timer        not armed  timer',
    '  table        [1 2 3 4 5 6 7 8 ... 10 elements]  uint8',
    '  zeros        4 x 0  uint16',
    `  blob         ${'ab'.repeat(24)}... 30 bytes  buffer`,
    '  queue[0]  queue version 1',
    '    head  3  uint16',
    '  queue[1..2]  null  ptr-marker',
    '  esc?[2J      5  uint8',
    '',
  ]);
  const { state } = deviceJson(device);
  assert.deepEqual(
    state?.fields.slice(0, 5).map(({ name, offset, value, values }) => ({ name, offset, value, values })),
    [
      { name: 'count', offset: 0, value: 258, values: undefined },
      { name: 'delta', offset: 4, value: -2, values: undefined },
      { name: 'on', offset: 6, value: true, values: undefined },
      { name: 'timer', offset: 7, value: null, values: undefined },
      { name: 'table', offset: 15, value: undefined, values: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10] },
    ],
  );
  assert.doesNotThrow(() => JSON.stringify(deviceJson(device)));
});

test('a section that is not described is bytes', async () => {
  const device = await firstDevice({ body: Buffer.from('0102', 'hex'), described: undefined });
  assert.equal(deviceText(device, PLAIN).split('\n')[1], '  0102');
  assert.equal(deviceJson(device).bytes, '0102');
});

const text = ({ report }: Inspection, wanted = ALL as (section: { idstr: string }) => boolean) =>
  reportText(report, PLAIN, wanted);

test('the report in tables', async () => {
  const shown = text(await inspectBytes(fixture('mapped-ram-11.1')));
  assert.match(shown, /^file: migration stream with mapped RAM, [\d,]+ bytes$/m);
  assert.match(shown, /^ {2}machine type {3}pc-i440fx-7\.2$/m);
  assert.match(shown, /^ {2}pc\.ram +16,777,216 +0 +4,096 +0 {2}pages at 0x00100000$/m);
  assert.match(shown, /^ {2}0x[\da-f]{8} +18 {2}END +\d+ {2}ram +0 +4$/m);
  assert.match(shown, /^ {2}all of the file +[\d,]+$/m);
  assert.doesNotMatch(shown, /Damaged|not understood|Commands/);
  // Columns: every number of a table ends where its head ends.
  const rows = shown.split('\n').filter((line) => /0x[\da-f]{8}.* FULL /.test(line));
  assert.equal(new Set(rows.map((line) => line.indexOf('FULL'))).size, 1);

  const onlyCpu = text(await inspectBytes(fixture('pc-11.1')), ({ idstr }) => idstr.includes('cpu'));
  assert.match(onlyCpu, /cpu_common/);
  assert.doesNotMatch(onlyCpu, /i8259/);
});

test('commands and damage in tables', async () => {
  const shown = text(await inspectBytes(fixture('return-path-11.1').subarray(0, 70_000)));
  assert.match(shown, /^ {2}0x[\da-f]{8} {2}PING +value=1$/m);
  assert.match(shown, /^Damaged at offset 70,000 \(0x00011170\)$/m);
  assert.match(shown, /^ {2}expected {2}\d+ bytes$/m);
  assert.match(shown, /^ {2}found {5}\d+, then the end of the file$/m);
});

test('colours only when asked for', async () => {
  const { report } = await inspectBytes(fixture('pc-11.1').subarray(0, 1000));
  assert.ok(!reportText(report, PLAIN, ALL).includes('\x1b'));
  assert.ok(reportText(report, COLOURS, ALL).includes('\x1b[31mDamaged'));
});
