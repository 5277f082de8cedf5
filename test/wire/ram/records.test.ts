/** Page records against their bytes, both ways; the decoder takes no other order than the one it is given. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { Reader } from '../../../src/base/index.ts';
import {
  RAM_RECORD_HEADER_MAX,
  RAM_STOP,
  RamDecoder,
  ramFlagNames,
  writeEos,
  writeMultifdFlush,
  writePageRecord,
  writeXbzrleHeader,
  writeZeroRecord,
  xbzrleHeaderSize,
} from '../../../src/wire/index.ts';
import { pattern } from '../samples.ts';
import { Memory, PAGE } from '../streams.ts';

const NAME = Buffer.from('pc.ram');
const into = Buffer.alloc(64 * 1024);
const page = pattern(PAGE, 7);
const hex = (end: number) => into.toString('hex', 0, end);

test('records, byte by byte', () => {
  const table: readonly [() => number, string][] = [
    [() => writeZeroRecord(into, 0, 0x5000, NAME), '0000000000005002' + '06' + '70632e72616d' + '00'],
    [() => writeZeroRecord(into, 0, 0x5000, undefined), '0000000000005022' + '00'],
    [() => writeZeroRecord(into, 0, 2 ** 40 + 0x1000, undefined), '0000010000001022' + '00'],
    [() => writeZeroRecord(into, 0, 0xfffff000, undefined), '00000000fffff022' + '00'],
    [() => writeZeroRecord(into, 0, 2 ** 53 - PAGE, undefined), '001ffffffffff022' + '00'],
    [() => writePageRecord(into, 0, 0x1000, undefined, page, 0, PAGE), '0000000000001028' + page.toString('hex')],
    [() => writeXbzrleHeader(into, 0, 0x1000, undefined, 0x123), '0000000000001060' + '01' + '0123'],
    [() => writeEos(into, 0), '0000000000000010'],
    [() => writeMultifdFlush(into, 0), '0000000000000200'],
  ];
  for (const [write, bytes] of table) assert.equal(hex(write()), bytes);
});

test('the size of an xbzrle header is known before', () => {
  for (const name of [undefined, NAME, Buffer.alloc(255, 'x')]) {
    assert.equal(xbzrleHeaderSize(name), writeXbzrleHeader(into, 0, 0, name, 1));
    assert.ok(xbzrleHeaderSize(name) <= RAM_RECORD_HEADER_MAX);
  }
});

interface Written {
  readonly block: number;
  readonly page: number;
  readonly seed: number;
}

const BLOCKS = [
  { idstr: 'pc.ram', usedLength: 2 ** 33 },
  { idstr: 'pc.rom', usedLength: 32 * PAGE },
  { idstr: 'x'.repeat(255), usedLength: 8 * PAGE },
];
const NAMES = BLOCKS.map((block) => Buffer.from(block.idstr));

test('what is written is read, in whatever pieces, with and without CONTINUE', () => {
  const record = fc.record({
    block: fc.integer({ min: 0, max: 2 }),
    page: fc.integer({ min: 0, max: 7 }),
    seed: fc.integer({ min: 0, max: 250 }),
    named: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(record, { maxLength: 12 }), fc.integer({ min: 1, max: 9000 }), (records, step) => {
      let end = 0;
      let named = -1;
      for (const { block, page: index, seed, named: always } of records) {
        const name = block === named && !always ? undefined : NAMES[block];
        if (seed === 0) end = writeZeroRecord(into, end, index * PAGE, name);
        else end = writePageRecord(into, end, index * PAGE, name, pattern(PAGE, seed), 0, PAGE);
        named = block;
      }
      end = writeEos(into, end);

      const memory = new Memory();
      const decoder = new RamDecoder(PAGE, BLOCKS, memory);
      const reader = new Reader(into);
      reader.end = 0;
      let stop: number = RAM_STOP.STARVED;
      while (stop === RAM_STOP.STARVED || stop === RAM_STOP.FULL) {
        if (stop === RAM_STOP.STARVED) {
          assert.ok(reader.end < end, 'starved with all bytes there');
          reader.end = Math.min(end, reader.end + step);
        }
        stop = decoder.decode(reader, 3);
      }
      assert.equal(stop, RAM_STOP.EOS);
      assert.equal(reader.pos, end);
      const last = new Map(records.map((one: Written) => [`${one.block}/${one.page * PAGE}`, one.seed]));
      assert.deepEqual([...memory.pages.keys()].sort(), [...last.keys()].sort());
      for (const [key, seed] of last) {
        assert.deepEqual(memory.pages.get(key), seed === 0 ? Buffer.alloc(PAGE) : pattern(PAGE, seed));
      }
      assert.equal(decoder.counts.zero, records.filter((one) => one.seed === 0).length);
    }),
    { numRuns: 150, seed: 20261122 },
  );
});

test('a starved decoder says how much the record needs', () => {
  const end = writePageRecord(into, 0, 0, NAME, page, 0, PAGE);
  const decoder = new RamDecoder(PAGE, BLOCKS, new Memory());
  const reader = new Reader(into);
  for (const [there, wanted] of [
    [0, 8],
    [7, 8],
    [8, 9],
    [9, 15],
    [14, 15],
    [15, end],
    [end - 1, end],
  ] as const) {
    reader.pos = 0;
    reader.end = there;
    assert.equal(decoder.decode(reader, 1), RAM_STOP.STARVED);
    assert.equal(decoder.wanted, wanted);
    assert.equal(reader.pos, 0);
  }
});

test('a new channel of a paused postcopy has to name its block first (fact 21 the other way round)', () => {
  const decoder = new RamDecoder(PAGE, BLOCKS, new Memory());
  const decode = (end: number) => {
    const reader = new Reader(into);
    reader.end = end;
    return decoder.decode(reader, 1);
  };
  assert.equal(decode(writeZeroRecord(into, 0, 0, NAME)), RAM_STOP.FULL);
  assert.equal(decode(writeZeroRecord(into, 0, PAGE, undefined)), RAM_STOP.FULL);
  decoder.forgetBlock();
  assert.throws(() => decode(writeZeroRecord(into, 0, PAGE, undefined)), /a name in the first record/);
});

test('the sink may not be called for what lies outside', () => {
  const decoder = new RamDecoder(PAGE, [{ idstr: 'a', usedLength: 3 * PAGE }], new Memory());
  const name = Buffer.from('a');
  const decode = (offset: number) => {
    const reader = new Reader(into);
    reader.end = writeZeroRecord(into, 0, offset, name);
    return decoder.decode(reader, 1);
  };
  assert.equal(decode(2 * PAGE), RAM_STOP.FULL);
  for (const offset of [3 * PAGE, 2 ** 32, 2 ** 52, 2 ** 53 - PAGE]) {
    assert.throws(() => decode(offset), { fault: { ...faultOfPage(offset) } });
  }

  function faultOfPage(offset: number) {
    return {
      code: 'WIRE_UNEXPECTED_VALUE',
      stream: 'stream',
      offset: 0,
      path: `block a / page ${offset / PAGE}`,
      field: 'offset of the page',
      expected: 'at most 0x2000',
      found: '0x' + offset.toString(16),
    };
  }
});

test('flags have names', () => {
  assert.equal(ramFlagNames(0x28), 'PAGE|CONTINUE');
  assert.equal(ramFlagNames(0x402), 'ZERO|0x400');
  assert.equal(ramFlagNames(0), '0x0');
});
