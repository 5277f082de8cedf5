/** Headers of packets with pages: both directions, what must be borne, what must not. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import {
  isWireError,
  MULTIFD_COMPRESSION,
  MULTIFD_FLAG,
  type MultifdCompression,
  MultifdHeaderDecoder,
  multifdHeaderBytes,
  multifdPagesMax,
  type WireError,
  writeMultifdHeader,
} from '../../../src/wire/index.ts';

const PAGE = 4096;
const BLOCKS = [
  { idstr: 'pc.ram', usedLength: 2 ** 33 },
  { idstr: 'pc.rom', usedLength: 32 * PAGE },
  { idstr: 'x'.repeat(255), usedLength: 8 * PAGE },
];
const NAMES = BLOCKS.map((block) => Buffer.from(block.idstr));
const place = { stream: 'multifd 2', origin: 5000 };

function decoder(compression: MultifdCompression = 'none') {
  return new MultifdHeaderDecoder(PAGE, BLOCKS, compression);
}

/** Two normal pages and a zero page of pc.ram. */
function sample(flags = 0, payload = 2 * PAGE): Buffer {
  const into = Buffer.alloc(multifdHeaderBytes(PAGE), 0xee);
  writeMultifdHeader(
    into,
    flags,
    NAMES[0],
    2,
    1,
    payload,
    2 ** 40 + 5,
    Float64Array.of(0x3000, 2 ** 32 + PAGE, 0x1000),
  );
  return into;
}

test('the table has as many places as 512 KiB have pages', () => {
  assert.equal(multifdPagesMax(4096), 128);
  assert.equal(multifdHeaderBytes(4096), 1344);
  assert.equal(multifdHeaderBytes(65536), 320 + 8 * 8);
});

test('a header, byte by byte', () => {
  const numbers = '11223344' + '00000001' + '00000001' + '00000080' + '00000002' + '00002000' + '0000010000000005';
  const name = Buffer.from('pc.ram').toString('hex') + '00'.repeat(250);
  const offsets = '0000000000003000' + '0000000100001000' + '0000000000001000' + '0000000000000000'.repeat(125);
  assert.equal(sample(MULTIFD_FLAG.SYNC).toString('hex'), numbers + '00000001' + '00'.repeat(28) + name + offsets);
});

test('a SYNC packet has no pages, no name, no places (as 9.2 and later)', () => {
  const into = Buffer.alloc(multifdHeaderBytes(PAGE), 0xee);
  writeMultifdHeader(into, MULTIFD_FLAG.SYNC, undefined, 0, 0, 0, 3, new Float64Array(128));
  const start = '112233440000000100000001' + '00'.repeat(19) + '03';
  assert.equal(into.toString('hex'), start + '00'.repeat(1344 - 32));
});

test('what is written is read', () => {
  const property = fc.property(
    fc.integer({ min: 0, max: 2 }),
    fc.array(fc.integer({ min: 0, max: 7 }), { maxLength: 128 }),
    fc.double({ min: 0, max: 1, noNaN: true }),
    fc.boolean(),
    fc.constantFrom<MultifdCompression>('none', 'zlib', 'zstd'),
    (block, pages, share, sync, compression) => {
      const normal = Math.round(pages.length * share);
      const offsets = Float64Array.from(pages, (page) => page * PAGE);
      const payload = compression === 'none' ? normal * PAGE : normal * 10;
      const flags = (sync ? MULTIFD_FLAG.SYNC : 0) | MULTIFD_COMPRESSION[compression];
      const into = Buffer.alloc(1344);
      writeMultifdHeader(into, flags, NAMES[block], normal, pages.length - normal, payload, 1, offsets);
      const read = decoder(compression);
      read.decode(place, into);
      assert.equal(read.flags, flags);
      assert.equal(read.sync, sync);
      assert.equal(read.block, pages.length === 0 ? -1 : block);
      assert.deepEqual([read.normalPages, read.zeroPages], [normal, pages.length - normal]);
      assert.equal(read.payloadBytes, payload);
      assert.deepEqual(read.offsets.subarray(0, pages.length), offsets);
    },
  );
  fc.assert(property, { seed: 20261120 });
});

function readable(bytes: Buffer, compression: MultifdCompression = 'none'): MultifdHeaderDecoder {
  const read = decoder(compression);
  read.decode(place, bytes);
  return read;
}

test('packets without pages are believed in nothing but their flags (QEMU 7.2)', () => {
  for (const compression of ['none', 'zlib', 'zstd'] as const) {
    for (const flags of [0, MULTIFD_FLAG.SYNC, MULTIFD_FLAG.SYNC | MULTIFD_COMPRESSION.zlib]) {
      const bytes = sample(flags, 524288);
      bytes.writeUInt32BE(0, 16);
      bytes.writeUInt32BE(0, 32);
      bytes.fill('z', 64, 320);
      bytes.fill(0xff, 320);
      const read = readable(bytes, compression);
      assert.deepEqual([read.block, read.normalPages, read.zeroPages, read.payloadBytes], [-1, 0, 0, 0]);
      assert.equal(read.sync, flags !== 0);
    }
  }
});

test('a packet of zero pages alone has no payload, whatever its size and its compression id say', () => {
  const bytes = sample(MULTIFD_COMPRESSION.zstd, 77);
  bytes.writeUInt32BE(0, 16);
  bytes.writeUInt32BE(3, 32);
  const read = readable(bytes, 'none');
  assert.deepEqual([read.block, read.normalPages, read.zeroPages, read.payloadBytes], [0, 0, 3, 0]);
});

test('only what is behind the pages of the table may be stale', () => {
  const bytes = sample();
  bytes.fill(0xff, 320 + 3 * 8);
  assert.deepEqual([...readable(bytes).offsets.subarray(0, 3)], [0x3000, 2 ** 32 + PAGE, 0x1000]);
});

const damages: readonly [string, string, number, (bytes: Buffer) => void, MultifdCompression?][] = [
  ['WIRE_UNEXPECTED_VALUE', 'magic', 0, (bytes) => bytes.writeUInt32BE(0x5145564d, 0)],
  ['WIRE_UNEXPECTED_VALUE', 'version', 4, (bytes) => bytes.writeUInt32BE(2, 4)],
  ['WIRE_UNEXPECTED_VALUE', 'flags', 8, (bytes) => bytes.writeUInt32BE(0x80, 8)],
  ['WIRE_UNEXPECTED_VALUE', 'flags', 8, (bytes) => bytes.writeUInt32BE(0x80000000, 8)],
  ['WIRE_UNEXPECTED_VALUE', 'flags', 8, (bytes) => bytes.writeUInt32BE(0x40, 8)],
  ['WIRE_UNEXPECTED_VALUE', 'flags', 8, (bytes) => bytes.writeUInt32BE(0x41, 8)],
  ['WIRE_LIMIT', 'pages_alloc', 12, (bytes) => bytes.writeUInt32BE(129, 12)],
  ['WIRE_LIMIT', 'normal_pages', 16, (bytes) => bytes.writeUInt32BE(129, 16)],
  ['WIRE_LIMIT', 'normal_pages', 16, (bytes) => bytes.writeUInt32BE(1, 12)],
  ['WIRE_LIMIT', 'zero_pages', 32, (bytes) => bytes.writeUInt32BE(127, 32)],
  ['WIRE_LIMIT', 'zero_pages', 32, (bytes) => bytes.writeUInt32BE(0xffffffff, 32)],
  ['WIRE_UNEXPECTED_VALUE', 'multifd-compression', 8, (bytes) => bytes.writeUInt32BE(MULTIFD_COMPRESSION.zlib, 8)],
  ['WIRE_UNEXPECTED_VALUE', 'multifd-compression', 8, () => {}, 'zlib'],
  ['WIRE_UNEXPECTED_VALUE', 'multifd-compression', 8, (bytes) => bytes.writeUInt32BE(0x06, 8)],
  ['WIRE_UNSUPPORTED', 'multifd-compression qpl', 8, (bytes) => bytes.writeUInt32BE(0x08, 8)],
  ['WIRE_UNSUPPORTED', 'multifd-compression uadk', 8, (bytes) => bytes.writeUInt32BE(0x10, 8)],
  ['WIRE_UNSUPPORTED', 'multifd-compression qatzip', 8, (bytes) => bytes.writeUInt32BE(0x20, 8), 'zstd'],
  ['WIRE_UNEXPECTED_VALUE', 'next_packet_size', 20, (bytes) => bytes.writeUInt32BE(PAGE, 20)],
  [
    'WIRE_UNEXPECTED_VALUE',
    'next_packet_size',
    20,
    (bytes) => {
      bytes.writeUInt32BE(MULTIFD_COMPRESSION.zlib, 8);
      bytes.writeUInt32BE(0, 20);
    },
    'zlib',
  ],
  [
    'WIRE_LIMIT',
    'next_packet_size',
    20,
    (bytes) => {
      bytes.writeUInt32BE(MULTIFD_COMPRESSION.zstd, 8);
      bytes.writeUInt32BE(1024 * 1024 + 1, 20);
    },
    'zstd',
  ],
  ['WIRE_UNEXPECTED_VALUE', 'block', 64, (bytes) => bytes.write('pc.rat', 64)],
  ['WIRE_UNEXPECTED_VALUE', 'block', 64, (bytes) => bytes.write('pc.rams', 64)],
  ['WIRE_UNEXPECTED_VALUE', 'block', 64, (bytes) => bytes.write('pc.ra\0', 64)],
  ['WIRE_UNEXPECTED_VALUE', 'block', 64, (bytes) => bytes.fill('x', 64, 320)],
  ['WIRE_UNEXPECTED_VALUE', 'offset 0', 320, (bytes) => bytes.writeUInt32BE(0x3001, 324)],
  ['WIRE_UNEXPECTED_VALUE', 'offset 1', 328, (bytes) => bytes.writeUInt32BE(2, 328)],
  ['WIRE_UNEXPECTED_VALUE', 'offset 1', 328, (bytes) => bytes.fill(0xff, 328, 336)],
  ['WIRE_UNEXPECTED_VALUE', 'offset 2', 336, (bytes) => bytes.writeUInt32BE(0xfffff001, 340)],
];

for (const [index, [code, named, at, damage, compression]] of damages.entries()) {
  test(`damage ${index}: ${code} for ${named}`, () => {
    const bytes = sample();
    damage(bytes);
    assert.throws(
      () => readable(bytes, compression),
      ({ fault }: WireError) => {
        assert.equal(fault.code, code);
        assert.equal('feature' in fault ? fault.feature : 'field' in fault ? fault.field : '', named);
        assert.deepEqual([fault.stream, fault.offset], ['multifd 2', 5000 + at]);
        return true;
      },
    );
  });
}

test('whatever the bytes, the outcome is a header inside its bounds or a WireError', () => {
  const edits = fc.array(fc.tuple(fc.integer({ min: 0, max: 1343 }), fc.integer({ min: 0, max: 255 })), {
    minLength: 1,
    maxLength: 6,
  });
  const property = fc.property(edits, fc.constantFrom<MultifdCompression>('none', 'zlib'), (list, compression) => {
    const bytes = sample(MULTIFD_COMPRESSION[compression]);
    for (const [at, value] of list) bytes[at] = value;
    try {
      const read = readable(bytes, compression);
      const pages = read.normalPages + read.zeroPages;
      assert.ok(pages <= 128 && read.payloadBytes <= 1024 * 1024);
      const legal = pages === 0 ? 0 : BLOCKS[read.block]!.usedLength;
      assert.ok(read.offsets.subarray(0, pages).every((offset) => offset % PAGE === 0 && offset + PAGE <= legal));
    } catch (thrown) {
      if (!isWireError(thrown)) throw thrown;
    }
  });
  fc.assert(property, { seed: 20261121, numRuns: 500 });
});
