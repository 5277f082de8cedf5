import assert from 'node:assert/strict';
import test from 'node:test';
import { countBits, testBit } from '../../../src/base/index.ts';
import {
  bitmapFromWire,
  encodeReturnPathMessage,
  RETURN_PATH_MESSAGES,
  ReturnPathDecoder,
  type ReturnPathMessage,
  StreamInput,
  StreamParser,
  type StreamRamBlock,
  wireBitmapBytes,
} from '../../../src/wire/index.ts';
import { decodeReturnPath, faultOf, fixture, PAGE, readerOf, written } from '../streams.ts';

const name = '0670632e72616d';
const MESSAGES: readonly [string, ReturnPathMessage][] = [
  ['0001 0004 00000000', { type: 'SHUT', value: 0 }],
  ['0001 0004 00000001', { type: 'SHUT', value: 1 }],
  ['0002 0004 00000042', { type: 'PONG', value: 0x42 }],
  [
    `0003 0013 0000000100002000 00001000 ${name}`,
    { type: 'REQ_PAGES_ID', block: 'pc.ram', start: 0x1_0000_2000, length: 4096 },
  ],
  ['0004 000c 0000000000003000 00200000', { type: 'REQ_PAGES', start: 0x3000, length: 0x200000 }],
  [
    `0005 0007 ${name} 0000000000000008 0102030405060708 0123456789abcdef`,
    { type: 'RECV_BITMAP', block: 'pc.ram', bitmap: Buffer.from('0102030405060708', 'hex') },
  ],
  ['0006 0004 00000001', { type: 'RESUME_ACK', value: 1 }],
  ['0007 0000', { type: 'SWITCHOVER_ACK' }],
];
const bytesOf = (text: string) => Buffer.from(text.replaceAll(' ', ''), 'hex');

for (const [text, message] of MESSAGES) {
  test(`${message.type}: both ways`, () => {
    assert.equal(
      written((writer) => encodeReturnPathMessage(writer, message)).toString('hex'),
      text.replaceAll(' ', ''),
    );
    assert.deepEqual(decodeReturnPath(bytesOf(text)), [message]);
  });
}

test('the messages of the table are all covered', () => {
  assert.deepEqual([...new Set(MESSAGES.map(([, { type }]) => type))].sort(), Object.keys(RETURN_PATH_MESSAGES).sort());
});

const ALL = bytesOf(MESSAGES.map(([text]) => text).join(''));

test('in pieces of any size', () => {
  for (let step = 1; step < 20; step++) {
    const cuts = Array.from({ length: ALL.length }, (_, i) => i * step);
    assert.deepEqual(
      decodeReturnPath(ALL, cuts),
      MESSAGES.map(([, message]) => message),
    );
  }
});

test('an end inside a message is WIRE_TRUNCATED, between messages an end', () => {
  let boundary = 0;
  const boundaries = new Set([0, ...MESSAGES.map(([text]) => (boundary += bytesOf(text).length))]);
  for (let end = 0; end <= ALL.length; end++) {
    if (boundaries.has(end)) assert.doesNotThrow(() => decodeReturnPath(ALL.subarray(0, end)));
    else {
      const fault = faultOf(() => decodeReturnPath(ALL.subarray(0, end)));
      assert.deepEqual([fault.code, fault.path, fault.offset], ['WIRE_TRUNCATED', 'return path message', end]);
    }
  }
});

for (const [title, text, code, field] of [
  ['type 0', '0000 0000', 'WIRE_UNSUPPORTED', 'a return path message of this type'],
  ['type 8', '0008 0000', 'WIRE_UNSUPPORTED', 'a return path message of this type'],
  ['long SHUT', '0001 0005 0000000000', 'WIRE_UNEXPECTED_VALUE', 'payload length'],
  ['short PONG', '0002 0002 0000', 'WIRE_UNEXPECTED_VALUE', 'payload length'],
  ['endless REQ_PAGES_ID', '0003 ffff', 'WIRE_LIMIT', 'payload length'],
  ['REQ_PAGES_ID without name', `0003 000d 0000000000000000 00001000 00`, 'WIRE_UNEXPECTED_VALUE', 'payload length'],
  [
    'REQ_PAGES_ID, name too long',
    `0003 0013 0000000000000000 00001000 0770632e72616d`,
    'WIRE_UNEXPECTED_VALUE',
    'payload length',
  ],
  [
    'REQ_PAGES_ID, name too short',
    `0003 0013 0000000000000000 00001000 0570632e72616d`,
    'WIRE_UNEXPECTED_VALUE',
    'payload length',
  ],
  ['REQ_PAGES of nothing', '0004 000c 0000000000003000 00000000', 'WIRE_UNEXPECTED_VALUE', 'length'],
  ['REQ_PAGES beyond 2^53', '0004 000c 0100000000003000 00001000', 'WIRE_UNEXPECTED_VALUE', 'start'],
  ['RESUME_ACK 0', '0006 0004 00000000', 'WIRE_UNEXPECTED_VALUE', 'value'],
  ['SWITCHOVER_ACK with payload', '0007 0004 00000000', 'WIRE_UNEXPECTED_VALUE', 'payload length'],
  ['endless bitmap', `0005 0007 ${name} 0000000010000000`, 'WIRE_LIMIT', 'bitmap size'],
  ['odd bitmap', `0005 0007 ${name} 0000000000000009`, 'WIRE_UNEXPECTED_VALUE', 'bitmap size'],
  [
    'bitmap end mark',
    `0005 0007 ${name} 0000000000000008 0102030405060708 0123456789abcdee`,
    'WIRE_UNEXPECTED_VALUE',
    'end mark',
  ],
] as const) {
  test(`refused: ${title}`, () => {
    const fault = faultOf(() => decodeReturnPath(Buffer.concat([bytesOf(text), Buffer.alloc(32)])));
    assert.equal(fault.code, code);
    assert.equal('field' in fault ? fault.field : 'feature' in fault ? fault.feature : '', field);
  });
}

test("the bound on bitmaps is the caller's to lower", () => {
  const bytes = bytesOf(MESSAGES[5]![0]);
  assert.equal(faultOf(() => decodeReturnPath(bytes, [], 7)).code, 'WIRE_LIMIT');
  assert.equal(decodeReturnPath(bytes, [], 8).length, 1);
});

for (const version of ['7.2', '10.0', '11.1']) {
  test(`${version}: what a destination said in postcopy, and after it was cut off`, () => {
    const before = decodeReturnPath(fixture(`postcopy-${version}.return-path`), []);
    assert.deepEqual(before.slice(0, 2), [
      { type: 'PONG', value: 1 },
      { type: 'PONG', value: 2 },
    ]);
    const after = decodeReturnPath(fixture(`postcopy-${version}.recovery.return-path`));
    const { blocks, sent } = sentBefore(fixture(`postcopy-${version}`));
    const bitmaps = after.slice(0, blocks.length).filter((message) => message.type === 'RECV_BITMAP');
    assert.deepEqual(
      bitmaps.map(({ block, bitmap }) => [block, bitmap.length]),
      blocks.map(({ idstr, usedLength }) => [idstr, wireBitmapBytes(usedLength / PAGE)]),
    );
    for (const [index, { bitmap }] of bitmaps.entries()) {
      const pageCount = blocks[index]!.usedLength / PAGE;
      const received = bitmapFromWire(bitmap, pageCount);
      for (let page = 0; page < pageCount; page++) {
        if (testBit(received, page)) assert.ok(sent.has(`${index}/${page * PAGE}`), `page ${page} was never sent`);
      }
      const count = [...sent].filter((key) => key.startsWith(`${index}/`)).length;
      assert.ok(countBits(received) >= count - 8, `${countBits(received)} of ${count} pages that were sent arrived`);
    }
    // Fact 21: after a recovery the first request names its block again.
    const rest = after.slice(blocks.length).map(({ type }) => type);
    assert.equal(rest[0], 'RESUME_ACK');
    assert.equal(rest[1], 'REQ_PAGES_ID');
    assert.deepEqual(after.at(-1), { type: 'SHUT', value: 0 });
  });
}

/** Blocks, and pages (`block/offset`) that the source has sent and not discarded since. */
function sentBefore(bytes: Buffer) {
  const sent = new Set<string>();
  const note = (block: number, offset: number) => void sent.add(`${block}/${offset}`);
  const input = new StreamInput('before');
  input.add({ bytes, start: 0, end: bytes.length });
  const parser = new StreamParser(input.reader);
  let blocks: readonly StreamRamBlock[] = [];
  for (let event = parser.next(); event !== undefined; event = parser.next()) {
    if (event.kind === 'ram-blocks') {
      blocks = event.blocks;
      parser.setRamSink({ page: note, zero: note, read() {} });
    }
    if (event.kind !== 'command' || event.command.name !== 'POSTCOPY_RAM_DISCARD') continue;
    const { block, ranges } = event.command;
    const index = blocks.findIndex(({ idstr }) => idstr === block);
    for (const { start, length } of ranges) {
      for (let at = start; at < start + length; at += PAGE) sent.delete(`${index}/${at}`);
    }
  }
  return { blocks, sent };
}

test('a message that is not whole is decoded from its start again', () => {
  const reader = readerOf(ALL.subarray(0, 6), false);
  const decoder = new ReturnPathDecoder(reader);
  assert.equal(decoder.next(), undefined);
  assert.equal(reader.pos, 0);
});
