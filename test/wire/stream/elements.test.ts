/** Every element of the main stream against its bytes, both ways, and against bytes that it must not be. */
import assert from 'node:assert/strict';
import test from 'node:test';
import type { Reader, Writer } from '../../../src/base/index.ts';
import {
  COMMANDS,
  type Command,
  type Configuration,
  decodeCommand,
  decodeConfiguration,
  decodeDescription,
  decodeHeader,
  decodeSectionBegin,
  decodeSectionFooter,
  encodeCommand,
  encodeConfiguration,
  encodeDescription,
  encodeHeader,
  encodeSectionBegin,
  encodeSectionFooter,
  type SectionHeader,
} from '../../../src/wire/index.ts';
import { faultOf, fixture, readerOf, written } from '../streams.ts';

const hex = (text: string) => Buffer.from(text.replaceAll(/\s/g, ''), 'hex');
const ascii = (text: string) => Buffer.from(text).toString('hex');

const CONFIGURATION = '07 0000000d' + ascii('pc-i440fx-7.2');
const BARE: Configuration = {
  machineType: 'pc-i440fx-7.2',
  targetPageBits: undefined,
  capabilities: undefined,
  uuid: undefined,
};
const sub = (name: string, body: string) =>
  `05 ${(14 + name.length).toString(16).padStart(2, '0')} ${ascii(`configuration/${name}`)} 00000001 ${body}`;

interface Element {
  readonly name: string;
  readonly bytes: string;
  readonly value: unknown;
  encode(writer: Writer): void;
  decode(reader: Reader): unknown;
}

const configuration = (name: string, bytes: string, value: Partial<Configuration>): Element => ({
  name: `configuration ${name}`,
  bytes: CONFIGURATION + bytes,
  value: { ...BARE, ...value },
  encode: (writer) => encodeConfiguration(writer, { ...BARE, ...value }),
  // One byte more: only that shows that no subsection follows.
  decode: (reader) => decodeConfiguration(withNext(reader)),
});
const command = (bytes: string, value: Command): Element => ({
  name: `command ${value.name}`,
  bytes,
  value,
  encode: (writer) => encodeCommand(writer, value),
  decode: decodeCommand,
});
const STARTED: SectionHeader = { kind: 'start', id: 0x102, idstr: 'ram', instance: 0, version: 4 };
const section = (bytes: string, value: SectionHeader): Element => ({
  name: `section ${value.kind}`,
  bytes,
  value,
  encode: (writer) => encodeSectionBegin(writer, value),
  decode: (reader) => decodeSectionBegin(reader, (id) => (id === STARTED.id ? STARTED : undefined)),
});

const ELEMENTS: readonly Element[] = [
  {
    name: 'header',
    bytes: '5145564d 00000003',
    value: 3,
    encode: encodeHeader,
    decode: decodeHeader,
  },
  configuration('bare', '', {}),
  configuration('target-page-bits', sub('target-page-bits', '0000000e'), { targetPageBits: 14 }),
  configuration('capabilities', sub('capabilities', `00000001 0f ${ascii('x-ignore-shared')}`), {
    capabilities: ['x-ignore-shared'],
  }),
  configuration(
    'capabilities and uuid',
    sub('capabilities', `00000002 0f ${ascii('x-ignore-shared')} 0a ${ascii('mapped-ram')}`) +
      sub('uuid', '000102030405060708090a0b0c0d0e0f'),
    { capabilities: ['x-ignore-shared', 'mapped-ram'], uuid: hex('000102030405060708090a0b0c0d0e0f') },
  ),
  section(`01 00000102 03 ${ascii('ram')} 00000000 00000004`, STARTED),
  section('02 00000102', { ...STARTED, kind: 'part' }),
  section('03 00000102', { ...STARTED, kind: 'end' }),
  section(`04 00000007 0b ${ascii('globalstate')} 00000000 00000001`, {
    kind: 'full',
    id: 7,
    idstr: 'globalstate',
    instance: 0,
    version: 1,
  }),
  {
    name: 'footer',
    bytes: '7e 00000102',
    value: undefined,
    encode: (writer) => encodeSectionFooter(writer, STARTED.id),
    decode: (reader) => decodeSectionFooter(reader, STARTED),
  },
  command('08 0001 0000', { name: 'OPEN_RETURN_PATH' }),
  command('08 0002 0004 00000042', { name: 'PING', value: 0x42 }),
  command('08 0003 0000', { name: 'POSTCOPY_ADVISE', pageSizes: undefined }),
  command('08 0003 0010 0000000000201000 0000000000001000', {
    name: 'POSTCOPY_ADVISE',
    pageSizes: { summary: 0x201000n, target: 0x1000n },
  }),
  command('08 0004 0000', { name: 'POSTCOPY_LISTEN' }),
  command('08 0005 0000', { name: 'POSTCOPY_RUN' }),
  command(
    `08 0006 0029 00 06 ${ascii('pc.ram')} 00 0000000000001000 0000000000002000 0000000100000000 0000000000001000`,
    {
      name: 'POSTCOPY_RAM_DISCARD',
      block: 'pc.ram',
      ranges: [
        { start: 0x1000, length: 0x2000 },
        { start: 0x1_0000_0000, length: 0x1000 },
      ],
    },
  ),
  command('08 0007 0004 00001234', { name: 'PACKAGED', length: 0x1234 }),
  command('08 0008 0000', { name: 'ENABLE_COLO' }),
  command('08 0009 0000', { name: 'POSTCOPY_RESUME' }),
  command(`08 000a 0007 06 ${ascii('pc.ram')}`, { name: 'RECV_BITMAP', block: 'pc.ram' }),
  command('08 000b 0000', { name: 'SWITCHOVER_START' }),
  {
    name: 'description',
    bytes: `06 00000002 ${ascii('{}')}`,
    value: '{}',
    encode: (writer) => encodeDescription(writer, '{}'),
    decode: (reader) => decodeDescription(reader),
  },
  {
    name: 'empty description',
    bytes: '06 00000000',
    value: '',
    encode: (writer) => encodeDescription(writer, ''),
    decode: (reader) => decodeDescription(reader),
  },
];

function withNext(reader: Reader): Reader {
  reader.bytes = Buffer.concat([reader.bytes, Buffer.of(0x01)]);
  reader.end = reader.bytes.length;
  return reader;
}

for (const element of ELEMENTS) {
  const bytes = hex(element.bytes);

  test(`${element.name}: encodes to its bytes`, () => {
    assert.equal(written((writer) => element.encode(writer)).toString('hex'), bytes.toString('hex'));
  });

  test(`${element.name}: decodes from its bytes`, () => {
    const reader = readerOf(bytes);
    assert.deepEqual(element.decode(reader), element.value);
    assert.equal(reader.offset, bytes.length);
  });

  test(`${element.name}: cut short, it is WIRE_TRUNCATED`, () => {
    for (let length = 0; length < bytes.length; length++) {
      if (element.name.startsWith('configuration')) continue;
      assert.equal(faultOf(() => element.decode(readerOf(bytes.subarray(0, length)))).code, 'WIRE_TRUNCATED');
    }
  });
}

test('the commands of the table are all covered', () => {
  const covered = new Set(ELEMENTS.filter((one) => one.name.startsWith('command')).map((one) => one.name.slice(8)));
  assert.deepEqual([...covered].sort(), Object.keys(COMMANDS).sort());
  assert.equal(new Set(Object.values(COMMANDS).map((facts) => facts.number)).size, 11);
});

test('the first bytes of real streams', () => {
  const head = hex(`5145564d 00000003 ${CONFIGURATION}`);
  for (const version of ['7.2', '10.0', '11.1'])
    assert.deepEqual(fixture(`pc-${version}`).subarray(0, head.length), head);
});

const configurationOf = (bytes: string) => () => decodeConfiguration(readerOf(hex(bytes)));
const commandOf = (bytes: string) => () => decodeCommand(readerOf(hex(bytes)));
const sectionOf = (bytes: string) => () => decodeSectionBegin(readerOf(hex(bytes)), () => undefined);

/** Bytes that must be refused: [decoder, code, field or feature, offset]. */
const REFUSED: readonly [string, () => unknown, string, string, number][] = [
  ['magic', () => decodeHeader(readerOf(hex('5145564e 00000003'))), 'WIRE_UNEXPECTED_VALUE', 'magic', 0],
  ['version 2', () => decodeHeader(readerOf(hex('5145564d 00000002'))), 'WIRE_UNEXPECTED_VALUE', 'version', 4],
  ['no configuration', configurationOf('01 00000001'), 'WIRE_UNEXPECTED_VALUE', 'element type', 0],
  ['endless machine type', configurationOf('07 ffffffff 70'), 'WIRE_LIMIT', 'length of the machine type', 1],
  ['empty machine type', configurationOf('07 00000000 01'), 'WIRE_UNEXPECTED_VALUE', 'machine type', 5],
  [
    'control bytes in the machine type',
    configurationOf('07 00000002 1b63 01'),
    'WIRE_UNEXPECTED_VALUE',
    'machine type',
    5,
  ],
  [
    'unknown subsection',
    configurationOf(CONFIGURATION + sub('novelty', '00')),
    'WIRE_UNSUPPORTED',
    'this subsection of the configuration',
    18,
  ],
  [
    'subsection twice',
    configurationOf(CONFIGURATION + sub('target-page-bits', '0000000c') + sub('target-page-bits', '0000000c')),
    'WIRE_UNEXPECTED_VALUE',
    'subsection',
    58,
  ],
  [
    'page bits',
    configurationOf(CONFIGURATION + sub('target-page-bits', '00000020')),
    'WIRE_UNEXPECTED_VALUE',
    'page bits',
    54,
  ],
  ['endless capabilities', configurationOf(CONFIGURATION + sub('capabilities', 'ffffffff')), 'WIRE_LIMIT', 'count', 50],
  [
    'unknown capability',
    configurationOf(CONFIGURATION + sub('capabilities', `00000001 06 ${ascii('x-rdma')}`)),
    'WIRE_UNSUPPORTED',
    'a capability that changes the stream in an unknown way',
    54,
  ],
  ['empty idstr', sectionOf('04 00000001 00 00000000 00000001'), 'WIRE_UNEXPECTED_VALUE', 'idstr', 5],
  ['PART of nothing', sectionOf('02 00000001'), 'WIRE_UNEXPECTED_VALUE', 'id of a part section', 1],
  [
    'wrong footer',
    () => decodeSectionFooter(readerOf(hex('7e 00000103')), STARTED),
    'WIRE_UNEXPECTED_VALUE',
    'id in the footer',
    1,
  ],
  ['no footer', () => decodeSectionFooter(readerOf(hex('01 00000102')), STARTED), 'WIRE_UNEXPECTED_VALUE', 'footer', 0],
  ['command 0', commandOf('08 0000 0000'), 'WIRE_UNSUPPORTED', 'a command of this number', 1],
  ['command 12', commandOf('08 000c 0000'), 'WIRE_UNSUPPORTED', 'a command of this number', 1],
  ['long RUN', commandOf('08 0005 0001 00'), 'WIRE_UNEXPECTED_VALUE', 'payload length', 3],
  ['short PING', commandOf('08 0002 0002 0000'), 'WIRE_UNEXPECTED_VALUE', 'payload length', 3],
  ['ADVISE of 8 bytes', commandOf('08 0003 0008 0000000000001000'), 'WIRE_UNEXPECTED_VALUE', 'payload length', 3],
  ['discard version', commandOf(`08 0006 0014 01 01 61 00 ${'00'.repeat(16)}`), 'WIRE_UNEXPECTED_VALUE', 'version', 5],
  [
    'discard name past the payload',
    commandOf(`08 0006 0014 00 ff ${'61'.repeat(18)}`),
    'WIRE_UNEXPECTED_VALUE',
    'length of the block name',
    6,
  ],
  ['discard without ranges', commandOf('08 0006 0004 00 01 61 00'), 'WIRE_UNEXPECTED_VALUE', 'bytes of ranges', 9],
  [
    'discard of half a range',
    commandOf(`08 0006 000c 00 01 61 00 ${'00'.repeat(8)}`),
    'WIRE_UNEXPECTED_VALUE',
    'bytes of ranges',
    9,
  ],
  [
    'discard of nothing',
    commandOf(`08 0006 0014 00 01 61 00 ${'00'.repeat(16)}`),
    'WIRE_UNEXPECTED_VALUE',
    'length',
    17,
  ],
  ['RECV_BITMAP, name too short', commandOf('08 000a 0003 01 61 61'), 'WIRE_UNEXPECTED_VALUE', 'payload length', 3],
  ['endless description', () => decodeDescription(readerOf(hex('06 ffffffff'))), 'WIRE_LIMIT', 'length', 1],
];

for (const [name, act, code, field, offset] of REFUSED) {
  test(`refused: ${name}`, () => {
    const fault = faultOf(act);
    assert.equal(fault.code, code);
    assert.equal('field' in fault ? fault.field : 'feature' in fault ? fault.feature : '', field);
    assert.equal(fault.offset, offset);
    assert.equal(fault.stream, 'test');
  });
}
