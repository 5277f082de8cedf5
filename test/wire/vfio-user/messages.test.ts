/** Each command as bytes and as value, both ways; then what is wrong with bytes, one thing at a time. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { isWireError, vfioUser } from '../../../src/wire/index.ts';
import { copied, encodedAgain, hex, messageOf, said } from './support.ts';

type Row = readonly [title: string, bytes: string, value: unknown];

const versionText = Buffer.from(
  '{"capabilities":{"max_msg_fds":8,"max_data_xfer_size":1048576,"migration":{"pgsize":4096}}}\0',
).toString('hex');

/** Headers: id 0x1234, no error. */
const command = (number: number, payload: string) => header(number, payload, '00');
const reply = (number: number, payload: string) => header(number, payload, '01');
function header(number: number, payload: string, flags: string): string {
  const size = Buffer.alloc(4);
  size.writeUInt32LE(16 + payload.replaceAll(' ', '').length / 2);
  return `3412 ${number.toString(16).padStart(2, '0')}00 ${size.toString('hex')} ${flags}000000 00000000 ${payload}`;
}

const ROWS: readonly Row[] = [
  ['VERSION without JSON', command(1, '0000 0200'), { major: 0, minor: 2, capabilities: undefined }],
  [
    'VERSION',
    command(1, `0000 0200 ${versionText}`),
    { major: 0, minor: 2, capabilities: { maxMsgFds: 8, maxDataXferSize: 1048576, migration: { pgsize: 4096 } } },
  ],
  [
    'VERSION reply',
    reply(
      1,
      `0000 0000 ${Buffer.from('{"capabilities":{"twin_socket":{"supported":true,"fd_index":0}}}\0').toString('hex')}`,
    ),
    { major: 0, minor: 0, capabilities: { twinSocket: { supported: true, fdIndex: 0 } } },
  ],
  [
    'DMA_MAP',
    command(2, '20000000 03000000 0010000000000000 0000000001000000 0000004000000000'),
    { flags: 3, offset: 0x1000, address: 0x1_0000_0000, size: 0x4000_0000 },
  ],
  ['DMA_MAP reply', reply(2, ''), {}],
  [
    'DMA_UNMAP',
    command(3, '18000000 00000000 0000000001000000 0000004000000000'),
    { argsz: 24, flags: 0, address: 0x1_0000_0000, size: 0x4000_0000, bitmap: undefined },
  ],
  [
    'DMA_UNMAP with bitmap',
    command(3, '30000000 01000000 0000000001000000 0080000000000000 0010000000000000 0800000000000000'),
    { argsz: 48, flags: 1, address: 0x1_0000_0000, size: 0x8000, bitmap: { pageSize: 4096, size: 8 } },
  ],
  [
    'DMA_UNMAP reply with bitmap',
    reply(3, '30000000 01000000 0000000001000000 0080000000000000 0010000000000000 0800000000000000 8100000000000000'),
    {
      argsz: 48,
      flags: 1,
      address: 0x1_0000_0000,
      size: 0x8000,
      bitmap: { pageSize: 4096, bits: hex('8100000000000000') },
    },
  ],
  ['DEVICE_GET_INFO', command(4, '10000000 000000000000000000000000'), { argsz: 16 }],
  [
    'DEVICE_GET_INFO reply',
    reply(4, '10000000 03000000 09000000 05000000'),
    { argsz: 16, flags: 3, regions: 9, irqs: 5 },
  ],
  [
    'REGION_INFO',
    command(5, '50000000 00000000 07000000 00000000 0000000000000000 0000000000000000'),
    { argsz: 80, index: 7 },
  ],
  [
    'REGION_INFO reply',
    reply(5, '20000000 03000000 07000000 00000000 0001000000000000 0000000000000000'),
    { argsz: 32, flags: 3, index: 7, size: 256, offset: 0, capabilities: [] },
  ],
  [
    'REGION_INFO reply with capabilities',
    reply(
      5,
      '58000000 0f000000 01000000 20000000 0030000000000000 0000000000000000' +
        '0100 0100 50000000 02000000 00000000 0000000000000000 0010000000000000 0020000000000000 0010000000000000' +
        '0300 0100 00000000',
    ),
    {
      argsz: 88,
      flags: 15,
      index: 1,
      size: 0x3000,
      offset: 0,
      capabilities: [
        {
          kind: 'sparse-mmap',
          areas: [
            { offset: 0, size: 0x1000 },
            { offset: 0x2000, size: 0x1000 },
          ],
        },
        { kind: 'other', id: 3, version: 1 },
      ],
    },
  ],
  ['IO_FDS', command(6, '10000000 00000000 02000000 00000000'), { argsz: 16, index: 2 }],
  [
    'IO_FDS reply',
    reply(
      6,
      '38000000 00000000 02000000 01000000' +
        '0400000000000000 0400000000000000 00000000 02000000 01000000 00000000 1122334455667788',
    ),
    {
      argsz: 56,
      index: 2,
      subRegions: [{ offset: 4, size: 4, fdIndex: 0, type: 2, tail: hex('01000000 00000000 1122334455667788') }],
    },
  ],
  ['IRQ_INFO', command(7, '10000000 00000000 02000000 00000000'), { argsz: 16, index: 2 }],
  ['IRQ_INFO reply', reply(7, '10000000 09000000 02000000 20000000'), { argsz: 16, flags: 9, index: 2, count: 32 }],
  [
    'SET_IRQS with descriptors',
    command(8, '14000000 24000000 02000000 03000000 04000000'),
    { data: 'eventfd', action: 'trigger', index: 2, start: 3, count: 4, bools: [] },
  ],
  [
    'SET_IRQS with bools',
    command(8, '17000000 12000000 01000000 00000000 03000000 010001'),
    { data: 'bool', action: 'unmask', index: 1, start: 0, count: 3, bools: [true, false, true] },
  ],
  [
    'SET_IRQS: disable',
    command(8, '14000000 21000000 00000000 00000000 00000000'),
    { data: 'none', action: 'trigger', index: 0, start: 0, count: 0, bools: [] },
  ],
  ['SET_IRQS reply', reply(8, ''), {}],
  ['REGION_READ', command(9, '3d00000000000000 07000000 01000000'), { offset: 0x3d, region: 7, count: 1 }],
  [
    'REGION_READ reply',
    reply(9, '3d00000000000000 07000000 01000000 01'),
    { offset: 0x3d, region: 7, data: hex('01') },
  ],
  [
    'REGION_WRITE',
    command(10, '3000000000000000 07000000 04000000 00f8ffff'),
    { offset: 0x30, region: 7, data: hex('00f8ffff') },
  ],
  ['REGION_WRITE reply', reply(10, '3000000000000000 07000000 04000000'), { offset: 0x30, region: 7, count: 4 }],
  ['DMA_READ', command(11, '0080000000000000 0004000000000000'), { address: 0x8000, count: 1024 }],
  ['DMA_READ reply', reply(11, '0080000000000000 0300000000000000 414243'), { address: 0x8000, data: hex('414243') }],
  ['DMA_WRITE', command(12, '0080000000000000 0300000000000000 414243'), { address: 0x8000, data: hex('414243') }],
  ['DMA_WRITE reply', reply(12, '0080000000000000 0300000000000000'), { address: 0x8000, count: 3 }],
  ['DEVICE_RESET', command(13, ''), {}],
  ['DEVICE_RESET reply', reply(13, ''), {}],
  [
    'REGION_WRITE_MULTI',
    command(15, '0100000000000000 1000000000000000 02000000 04000000 0102030400000000'),
    { writes: [{ offset: 16, region: 2, count: 4, data: hex('0102030400000000') }] },
  ],
  ['REGION_WRITE_MULTI reply', reply(15, '0100000000000000'), { done: 1 }],
  [
    'DEVICE_FEATURE: set the state',
    command(16, '10000000 02000200 03000000 ffffffff'),
    { argsz: 16, flags: { index: 2, get: false, set: true, probe: false }, data: hex('03000000 ffffffff') },
  ],
  [
    'DEVICE_FEATURE: probe',
    command(16, '08000000 02000700'),
    { argsz: 8, flags: { index: 2, get: true, set: true, probe: true }, data: hex('') },
  ],
  [
    'DEVICE_FEATURE reply',
    reply(16, '10000000 01000100 0500000000000000'),
    { argsz: 16, flags: { index: 1, get: true, set: false, probe: false }, data: hex('0500000000000000') },
  ],
  ['MIG_DATA_READ', command(17, '08040000 00040000'), { argsz: 1032, size: 1024 }],
  ['MIG_DATA_READ reply', reply(17, '0b000000 03000000 010203'), { data: hex('010203') }],
  ['MIG_DATA_READ reply at the end', reply(17, '08000000 00000000'), { data: hex('') }],
  ['MIG_DATA_WRITE', command(18, '0b000000 03000000 010203'), { data: hex('010203') }],
  ['MIG_DATA_WRITE reply', reply(18, ''), {}],
];

for (const [title, text, value] of ROWS) {
  test(`${title}: both ways`, () => {
    const message = messageOf(hex(text));
    assert.deepEqual(said(message), value);
    assert.equal(encodedAgain(message).toString('hex'), text.replaceAll(' ', ''));
  });
}

test('every command is in the table, as request and as reply', () => {
  const seen = new Set(ROWS.map(([, text]) => `${hex(text)[2]} ${hex(text)[8]}`));
  const all = Object.values(vfioUser.COMMANDS).flatMap(({ number }) => [`${number} 0`, `${number} 1`]);
  assert.deepEqual(
    all.filter((one) => !seen.has(one)),
    [],
  );
});

type FeatureRow = readonly [
  name: string,
  body: { read(payload: vfioUser.Payload, name: string): unknown },
  bytes: string,
  value: unknown,
];
const F = vfioUser.FEATURES;
const FEATURE_ROWS: readonly FeatureRow[] = [
  ['MIGRATION', F.MIGRATION.get.reply, '0500000000000000', { flags: 5 }],
  ['MIG_DEVICE_STATE', F.MIG_DEVICE_STATE.set, '03000000 ffffffff', { state: 3, dataFd: -1 }],
  [
    'DMA_LOGGING_START',
    F.DMA_LOGGING_START.set,
    '0010000000000000 02000000 00000000 0000000000000000 0000000001000000 0000000002000000 0010000000000000',
    {
      pageSize: 4096,
      ranges: [
        { iova: 0, length: 0x1_0000_0000 },
        { iova: 0x2_0000_0000, length: 0x1000 },
      ],
    },
  ],
  [
    'DMA_LOGGING_START of all',
    F.DMA_LOGGING_START.set,
    '0010000000000000 00000000 00000000',
    { pageSize: 4096, ranges: [] },
  ],
  [
    'DMA_LOGGING_REPORT',
    F.DMA_LOGGING_REPORT.get.request,
    '0000000001000000 0080000000000000 0010000000000000',
    { iova: 0x1_0000_0000, length: 0x8000, pageSize: 4096 },
  ],
  [
    'DMA_LOGGING_REPORT reply',
    F.DMA_LOGGING_REPORT.get.reply,
    '0000000001000000 0080000000000000 0010000000000000 8100000000000000',
    { iova: 0x1_0000_0000, length: 0x8000, pageSize: 4096, bitmap: hex('8100000000000000') },
  ],
  ['MIG_DATA_SIZE', F.MIG_DATA_SIZE.get.reply, '0000100000000000', { stopCopyBytes: 0x10_0000 }],
  [
    'PRECOPY_INFO',
    F.PRECOPY_INFO.get.reply,
    '0000100000000000 0010000000000000 01000000 00000000',
    { initialBytes: 0x10_0000, dirtyBytes: 4096, flags: 1 },
  ],
  ['DEADLINE', F.DEADLINE.set, '01000000 2c010000', { state: 1, deadlineMs: 300 }],
  ['ESTIMATE', F.ESTIMATE.get.request, '03000000 00000000', { state: 3 }],
  ['ESTIMATE reply', F.ESTIMATE.get.reply, '03000000 00000000 dc05000000000000', { state: 3, us: 1500 }],
];

for (const [title, body, text, value] of FEATURE_ROWS) {
  test(`feature ${title}: both ways`, () => {
    assert.deepEqual(copied(body.read(vfioUser.payloadOf(hex(text), title), title)), value);
    assert.equal(vfioUser.encodeBody(body as never, value as never).toString('hex'), text.replaceAll(' ', ''));
  });
}

test('cut at every byte: truncated in the stream, and a payload that is short names what it lacks', () => {
  for (const [title, text, value] of ROWS) {
    const whole = hex(text);
    for (let end = 0; end < whole.length; end++) {
      assert.throws(() => messageOf(whole.subarray(0, end)), { code: 'WIRE_TRUNCATED' }, title);
      if (end < 16) continue;
      const short = Buffer.from(whole.subarray(0, end));
      short.writeUInt32LE(end, 4);
      // Some are whole without their tail (and then say something else); whatever the rest, it is said or refused.
      try {
        assert.notDeepEqual(said(messageOf(short)), value, `${title}, ${end} bytes`);
      } catch (thrown) {
        assert.ok(isWireError(thrown) && thrown.code === 'WIRE_UNEXPECTED_VALUE', `${title}, ${end} bytes: ${thrown}`);
        assert.ok(thrown.fault.offset <= end, 'the fault lies within the message');
      }
    }
  }
});

test('bytes behind a payload are not looked at, unless the payload goes to its end', () => {
  const toTheEnd = /VERSION|DEVICE_FEATURE|DMA_UNMAP$|DMA_UNMAP reply/;
  for (const [title, text, value] of ROWS.filter(([title]) => !toTheEnd.test(title))) {
    const padded = Buffer.concat([hex(text), Buffer.alloc(24, 0xee)]);
    padded.writeUInt32LE(padded.length, 4);
    assert.deepEqual(said(messageOf(padded)), value, title);
  }
});

const REFUSED: readonly (readonly [title: string, bytes: string, field: string])[] = [
  ['smaller than its header', '0000 0100 0f000000 00000000 00000000', 'message size'],
  ['larger than allowed', '0000 0100 ffffffff 00000000 00000000', 'message size'],
  ['neither command nor reply', '0000 0d00 10000000 02000000 00000000', 'type'],
  ['VERSION without NUL', command(1, '0000 0200 7b7d'), 'capabilities'],
  ['VERSION without JSON', command(1, '0000 0200 7b00'), 'capabilities'],
  ['VERSION with an array', command(1, '0000 0200 5b5d00'), 'capabilities'],
  ['VERSION with a text for a number', version('{"capabilities":{"max_msg_fds":"8"}}'), 'capabilities.max_msg_fds'],
  ['VERSION with a negative number', version('{"capabilities":{"max_msg_fds":-1}}'), 'capabilities.max_msg_fds'],
  ['VERSION with half a number', version('{"capabilities":{"pgsizes":0.5}}'), 'capabilities.pgsizes'],
  [
    'VERSION with a number for a truth',
    version('{"capabilities":{"write_multiple":1}}'),
    'capabilities.write_multiple',
  ],
  ['VERSION with null inside', version('{"capabilities":{"migration":null}}'), 'capabilities.migration'],
  ['VERSION with capabilities that are none', version('{"capabilities":[]}'), 'capabilities'],
  ['VERSION of endless text', command(1, `0000 0200 ${'20'.repeat(20_000)}00`), 'bytes of capabilities'],
  ['DMA_MAP with a small argsz', command(2, `1f000000 ${'00'.repeat(28)}`), 'argsz'],
  [
    'DMA_MAP beyond 2^53',
    command(2, `20000000 03000000 ${'00'.repeat(8)} 0000000000002000 ${'00'.repeat(8)}`),
    'address',
  ],
  ['DMA_UNMAP with half a bitmap', command(3, `30000000 01000000 ${'00'.repeat(16)} 0010000000000000 08`), 'size'],
  ['REGION_READ reply, fewer than said', reply(9, '0000000000000000 07000000 02000000 01'), 'data'],
  ['REGION_WRITE, fewer than said', command(10, '0000000000000000 07000000 ffffffff 01'), 'data'],
  ['DMA_WRITE of 2^53', command(12, '0080000000000000 0000000000002000 414243'), 'count of data'],
  ['MIG_DATA_READ reply, fewer than said', reply(17, '0b000000 04000000 010203'), 'data'],
  ['MIG_DATA_WRITE, fewer than said', command(18, '0b000000 ffffffff 010203'), 'data'],
  ['MIG_DATA_WRITE with a small argsz', command(18, '07000000 00000000'), 'argsz'],
  ['SET_IRQS with two actions', command(8, '14000000 29000000 00000000 00000000 00000000'), 'flags'],
  ['SET_IRQS with two kinds of data', command(8, '14000000 23000000 00000000 00000000 00000000'), 'flags'],
  ['SET_IRQS with an unknown bit', command(8, '14000000 61000000 00000000 00000000 00000000'), 'flags'],
  ['SET_IRQS, fewer bools than said', command(8, '14000000 22000000 00000000 00000000 ffffffff 01'), 'count'],
  ['WRITE_MULTI of too many', command(15, '0110000000000000'), 'count of writes'],
  ['WRITE_MULTI, fewer than said', command(15, `0200000000000000 ${'00'.repeat(24)}`), 'writes'],
  ['IO_FDS reply of too many', reply(6, '10000000 00000000 02000000 ffffffff'), 'count of subRegions'],
  ['DEVICE_FEATURE with an unknown bit', command(16, '08000000 02000900'), 'flags'],
  ['DEVICE_FEATURE that does nothing', command(16, '08000000 02000000'), 'flags'],
  ['DEVICE_FEATURE that gets and sets', command(16, '08000000 02000300'), 'flags'],
  ['capabilities before the end of the head', region('10000000', ''), 'capability offset'],
  ['capabilities behind the payload', region('ff000000', ''), 'capability offset'],
  ['a chain that goes back', region('20000000', '0300 0100 20000000'), 'capability offset'],
  ['a capability that is cut', region('20000000', '0300 0100'), 'next'],
  ['areas without end', region('20000000', '0100 0100 00000000 ffffffff 00000000'), 'count of areas'],
  ['fewer areas than said', region('20000000', '0100 0100 00000000 02000000 00000000'), 'areas'],
];

function version(text: string): string {
  return command(1, `0000 0200 ${Buffer.from(`${text}\0`).toString('hex')}`);
}

function region(capabilityOffset: string, capabilities: string): string {
  return reply(5, `20000000 08000000 00000000 ${capabilityOffset} ${'00'.repeat(16)} ${capabilities}`);
}

for (const [title, text, field] of REFUSED) {
  test(`refused: ${title}`, () => {
    const bytes = hex(text);
    assert.throws(
      () => said(messageOf(bytes)),
      (thrown) => {
        assert.ok(isWireError(thrown), String(thrown));
        const { fault } = thrown;
        assert.ok('field' in fault && fault.field === field, `${thrown.message}`);
        assert.ok(fault.offset <= bytes.length);
        return true;
      },
    );
  });
}

test('a reply that was cut to its request has no capabilities yet', () => {
  const cut = messageOf(hex(reply(5, `50000000 0f000000 00000000 20000000 ${'00'.repeat(16)}`)));
  assert.equal(vfioUser.decodeReply('DEVICE_GET_REGION_INFO', cut).capabilities, undefined);
});

test('error replies: without payload, with one, without a number', () => {
  const bare = messageOf(vfioUser.encodeErrorReply(7, 16, 22));
  assert.deepEqual([bare.type, bare.id, bare.command, bare.error, bare.payload.bytes.length], ['reply', 7, 16, 22, 0]);
  const laden = messageOf(hex('0700 1000 20000000 21000000 16000000 10000000 02000200 03000000 ffffffff'));
  assert.deepEqual([laden.error, laden.payload.bytes.length], [22, 16]);
  assert.equal(messageOf(hex('0700 1000 10000000 21000000 00000000')).error, 0);
  assert.equal(messageOf(hex('0700 1000 10000000 01000000 16000000')).error, undefined);
});

test('no reply wanted: of commands only; flags that nobody knows are not looked at', () => {
  const silent = messageOf(vfioUser.encodeRequest(1, 'DEVICE_RESET', {}, { noReply: true }));
  assert.deepEqual([silent.noReply, silent.type], [true, 'command']);
  assert.equal(messageOf(hex('0100 0d00 10000000 11000000 00000000')).noReply, false);
  assert.equal(messageOf(hex('0100 0d00 10000000 c0ffff00 00000000')).type, 'command');
});
