import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { bitmapWords, countBits, fillBitmap, newBitmap, setBit, testBit } from '../../../src/base/index.ts';
import {
  bitmapFromWire,
  bitmapToWire,
  decodeMappedRamHeader,
  encodeMappedRamHeader,
  encodeRamBlock,
  MAPPED_RAM_ALIGNMENT,
  MAPPED_RAM_HEADER_BYTES,
  mappedRamLayout,
  wireBitmapBytes,
} from '../../../src/wire/index.ts';
import { faultOf, feed, fixture, NOWHERE, originOf, PAGE, readerOf, written } from '../streams.ts';

const HEADER = { pageSize: 4096, bitmapOffset: 0x11c, pagesOffset: 0x100000 };
const u64 = (value: bigint) => value.toString(16).padStart(16, '0');
const headerBytes = ({ pageSize = 0x1000n, bitmap = 0x11cn, pages = 0x100000n }) =>
  '00000001' + u64(pageSize) + u64(bitmap) + u64(pages);
const BYTES = headerBytes({});
const place = { pageSize: 4096, usedLength: 16 * 4096 };
/** The header as it stands in a file at offset 0x100. */
const decode = (hex: string, usedLength = place.usedLength) => {
  const reader = readerOf(Buffer.from(hex, 'hex'));
  reader.origin = 0x100;
  return decodeMappedRamHeader(reader, 'block a', { ...place, usedLength });
};

test('the header, both ways', () => {
  assert.equal(written((writer) => encodeMappedRamHeader(writer, HEADER)).toString('hex'), BYTES);
  assert.equal(BYTES.length / 2, MAPPED_RAM_HEADER_BYTES);
  assert.deepEqual(decode(BYTES), HEADER);
});

test('the header of an ignored block has no region', () => {
  const none = headerBytes({ bitmap: 0n, pages: 0n });
  assert.deepEqual(decode(none), { pageSize: 4096, bitmapOffset: 0, pagesOffset: 0 });
});

for (const [title, bytes, field] of [
  ['page size', headerBytes({ pageSize: 0x2000n }), 'mapped-ram page size'],
  ['bitmap over the header', headerBytes({ bitmap: 0x11bn }), 'bitmap offset'],
  ['pages over the bitmap', headerBytes({ bitmap: 0xffff9n }), 'pages offset'],
  ['pages not on a page', headerBytes({ pages: 0x100800n }), 'pages offset'],
  ['pages beyond 2^53', headerBytes({ pages: 0x1ffffffffff000n }), 'end of the pages'],
  ['offsets beyond 2^53', headerBytes({ pages: 0xfffffffffffff000n }), 'pages offset'],
] as const) {
  test(`refused: ${title}`, () => {
    const fault = faultOf(() => decode(bytes));
    assert.equal(fault.code === 'WIRE_UNEXPECTED_VALUE' && fault.field, field);
  });
}

test('refused: a later version', () => {
  const fault = faultOf(() => decode('00000002' + BYTES.slice(8)));
  assert.equal(fault.code === 'WIRE_UNSUPPORTED' && fault.found, '2');
});

for (const name of ['mapped-ram-10.0', 'mapped-ram-11.1', 'mapped-ram-offset-11.1']) {
  test(`${name}: our layout is QEMU's`, () => {
    const origin = originOf(name);
    const file = fixture(name);
    const { events, error } = feed(file.subarray(origin), { origin, sink: NOWHERE });
    assert.equal(error, undefined);
    const list = events.find((event) => event.kind === 'ram-blocks')!;
    const places = mappedRamLayout(list.offset + 8, list.blocks, PAGE);
    for (const [index, block] of list.blocks.entries()) {
      const { entryOffset, bitmapBytes, end, ...mapped } = places[index]!;
      assert.deepEqual(mapped, block.mapped);
      const entry = written((writer) => encodeRamBlock(writer, block));
      assert.deepEqual(file.subarray(entryOffset, entryOffset + entry.length), entry);
      assert.equal(entryOffset + entry.length, mapped.bitmapOffset);
      assert.equal(end, mapped.pagesOffset + block.usedLength);
      // A page that the bitmap has not is zero or undefined; one that it has is there.
      const bitmap = file.subarray(mapped.bitmapOffset, mapped.bitmapOffset + bitmapBytes);
      const pages = bitmapFromWire(bitmap, block.usedLength / PAGE);
      for (let page = 0; page < block.usedLength / PAGE; page++) {
        const at = mapped.pagesOffset + page * PAGE;
        const zero = file.subarray(at, at + PAGE).equals(Buffer.alloc(PAGE));
        assert.equal(testBit(pages, page), !zero, `${block.idstr} page ${page}`);
      }
      assert.deepEqual(bitmapToWire(pages, block.usedLength / PAGE), bitmap);
    }
    const devices = events.find((event) => event.kind === 'section-end')!;
    assert.equal(devices.offset, places.at(-1)!.end + 8, 'EOS and footer follow the last region');
  });
}

test('an ignored block of QEMU 11.1 has no region', () => {
  const file = fixture('mapped-ram-ignore-shared-11.1');
  const { blocks } = feed(file, { sink: NOWHERE }).events.find((event) => event.kind === 'ram-blocks')!;
  const shared = blocks.find((block) => block.idstr === 'mem0')!;
  assert.deepEqual(shared.mapped, { pageSize: PAGE, bitmapOffset: 0, pagesOffset: 0 });
  assert.equal(shared.guestAddress, 0);
  assert.ok(blocks.every((block) => block === shared || block.mapped!.pagesOffset % MAPPED_RAM_ALIGNMENT === 0));
});

test('bitmaps, both ways', () => {
  assert.deepEqual([0, 1, 64, 65, 4096].map(wireBitmapBytes), [0, 8, 8, 16, 512]);
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 300 }), fc.infiniteStream(fc.nat()), (pageCount, stream) => {
      const map = newBitmap(pageCount);
      let left = 20;
      for (const bit of stream) {
        if (left-- === 0) break;
        setBit(map, bit % pageCount);
      }
      const bytes = bitmapToWire(map, pageCount);
      assert.equal(bytes.length, wireBitmapBytes(pageCount));
      for (let bit = 0; bit < pageCount; bit++) {
        assert.equal((bytes[bit >>> 3]! >>> (bit & 7)) & 1, testBit(map, bit) ? 1 : 0);
      }
      assert.deepEqual(bitmapFromWire(bytes, pageCount), map);
    }),
    { numRuns: 100, seed: 20261125 },
  );
});

test('bits past the last page are dropped', () => {
  const map = bitmapFromWire(Buffer.alloc(16, 0xff), 70);
  assert.equal(map.length, bitmapWords(70));
  assert.equal(countBits(map), 70);
  const full = newBitmap(70);
  fillBitmap(full, 70);
  assert.deepEqual(map, full);
});
