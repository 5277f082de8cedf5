/** The grammar where it is broken: what may not follow what, and no value that a stream may not have. */
import assert from 'node:assert/strict';
import test from 'node:test';
import {
  encodeRamBlockList,
  encodeRamEos,
  type SectionHeader,
  writeXbzrleHeader,
  writeZeroRecord,
} from '../../../src/wire/index.ts';
import { advised, BLOCKS, PC_RAM, pattern, RAM, Sample, started } from '../samples.ts';
import { faultIn, feed, PAGE } from '../streams.ts';

const other: SectionHeader = { kind: 'start', id: 3, idstr: 'dirty-bitmap', instance: 0, version: 1 };
const raw = (sample: Sample, ...bytes: number[]) => {
  sample.writer.raw(Buffer.from(bytes));
  return sample;
};
const rawPage = (offset: number, flags: number) => (into: Buffer) => {
  into.writeBigUInt64BE(BigInt(offset) | BigInt(flags), 0);
  return 8;
};

/** [name, stream, code, field or feature, path] */
const REFUSED: readonly [string, Sample, string, string, string][] = [
  ['element 05', raw(started(), 0x05), 'WIRE_UNEXPECTED_VALUE', 'element type', ''],
  ['element 06 before the end', raw(started(), 0x06), 'WIRE_UNEXPECTED_VALUE', 'element type', ''],
  ['element 7e', raw(started(), 0x7e), 'WIRE_UNEXPECTED_VALUE', 'element type', ''],
  ['element 07 twice', raw(started(), 0x07), 'WIRE_UNEXPECTED_VALUE', 'element type', ''],
  ['something after the end', raw(started().eof(), 0x01), 'WIRE_UNEXPECTED_VALUE', 'element type', 'description'],
  [
    'START with a used id',
    started().section({ ...other, id: RAM.id }),
    'WIRE_UNEXPECTED_VALUE',
    'section id',
    'section dirty-bitmap',
  ],
  ['START twice', started().ramStart(), 'WIRE_UNEXPECTED_VALUE', 'section id', 'section ram'],
  [
    'PART before START',
    new Sample().start().ram('part', () => 0),
    'WIRE_UNEXPECTED_VALUE',
    'id of a part section',
    'section id 2',
  ],
  [
    'PART after END',
    started()
      .ram('end', () => 0)
      .ram('part', () => 0),
    'WIRE_UNEXPECTED_VALUE',
    'section',
    'section ram',
  ],
  [
    'PART of a device',
    started()
      .device(7, 'timer', pattern(4, 3))
      .section({ ...other, id: 7, kind: 'part' }),
    'WIRE_UNEXPECTED_VALUE',
    'section',
    'section timer',
  ],
  [
    'ram as FULL',
    new Sample().start().section({ ...RAM, kind: 'full' }),
    'WIRE_UNEXPECTED_VALUE',
    'kind of section',
    'section ram',
  ],
  [
    'ram version 3',
    new Sample().start().section({ ...RAM, version: 3 }),
    'WIRE_UNEXPECTED_VALUE',
    'version',
    'section ram',
  ],
  [
    'block migration',
    new Sample().start().section({ ...other, idstr: 'block' }),
    'WIRE_UNSUPPORTED',
    'block migration (removed in QEMU 9.1)',
    'section block',
  ],
  [
    'PING without return path',
    new Sample().start().command({ name: 'PING', value: 1 }),
    'WIRE_UNEXPECTED_VALUE',
    'command',
    'command PING',
  ],
  [
    'ENABLE_COLO',
    started().command({ name: 'ENABLE_COLO' }),
    'WIRE_UNSUPPORTED',
    'capability x-colo',
    'command ENABLE_COLO',
  ],
  [
    'ADVISE twice',
    advised().command({ name: 'POSTCOPY_ADVISE', pageSizes: undefined }),
    'WIRE_UNEXPECTED_VALUE',
    'command',
    'command POSTCOPY_ADVISE',
  ],
  [
    'LISTEN without ADVISE',
    started().command({ name: 'POSTCOPY_LISTEN' }),
    'WIRE_UNEXPECTED_VALUE',
    'command',
    'command POSTCOPY_LISTEN',
  ],
  [
    'RUN without LISTEN',
    advised().command({ name: 'POSTCOPY_RUN' }),
    'WIRE_UNEXPECTED_VALUE',
    'command',
    'command POSTCOPY_RUN',
  ],
  [
    'DISCARD without ADVISE',
    started().command({ name: 'POSTCOPY_RAM_DISCARD', block: 'pc.ram', ranges: [{ start: 0, length: 4096 }] }),
    'WIRE_UNEXPECTED_VALUE',
    'command',
    'command POSTCOPY_RAM_DISCARD',
  ],
  ['PACKAGED without ADVISE', started().packaged(new Sample()), 'WIRE_UNEXPECTED_VALUE', 'command', 'command PACKAGED'],
  [
    'RESUME in a stream that was not cut',
    advised().command({ name: 'POSTCOPY_RESUME' }),
    'WIRE_UNEXPECTED_VALUE',
    'command',
    'command POSTCOPY_RESUME',
  ],
  [
    'SWITCHOVER_START twice',
    started().command({ name: 'SWITCHOVER_START' }).command({ name: 'SWITCHOVER_START' }),
    'WIRE_UNEXPECTED_VALUE',
    'command',
    'command SWITCHOVER_START',
  ],
  [
    'package in a package',
    advised().packaged(new Sample().packaged(new Sample())),
    'WIRE_UNEXPECTED_VALUE',
    'command',
    'package / command PACKAGED',
  ],
  [
    'PART in a package',
    advised().packaged(new Sample().ram('part', () => 0)),
    'WIRE_UNEXPECTED_VALUE',
    'kind of section',
    'package / section ram',
  ],
  ['end in a package', advised().packaged(new Sample().eof()), 'WIRE_UNEXPECTED_VALUE', 'element type', 'package'],
  [
    'device past its package',
    raw(advised().command({ name: 'PACKAGED', length: 9 }).device(7, 'x', Buffer.alloc(40)), 0, 0),
    'WIRE_UNEXPECTED_VALUE',
    'footer',
    'package / section x',
  ],
  [
    'command past its package',
    raw(advised().command({ name: 'PACKAGED', length: 3 }).command({ name: 'POSTCOPY_LISTEN' }), 0),
    'WIRE_UNEXPECTED_VALUE',
    'end of the last element',
    'package',
  ],
  [
    'no MEM_SIZE',
    new Sample().start().section(RAM, (body) => encodeRamEos(body)),
    'WIRE_UNEXPECTED_VALUE',
    'first record',
    'section ram / block list',
  ],
  [
    'MEM_SIZE in a PART',
    started().ram('part', rawPage(0x1000, 4)),
    'WIRE_UNEXPECTED_VALUE',
    'flags of the record',
    'section ram',
  ],
  [
    'block twice',
    new Sample().start().ramStart([BLOCKS[0]!, BLOCKS[0]!]),
    'WIRE_UNEXPECTED_VALUE',
    'block name',
    'section ram / block list',
  ],
  [
    'empty block',
    new Sample().start().ramStart([{ idstr: 'a', usedLength: 0 }, BLOCKS[0]!]),
    'WIRE_UNEXPECTED_VALUE',
    'used length',
    'section ram / block a',
  ],
  [
    'odd block',
    new Sample().start().ramStart([
      { idstr: 'a', usedLength: 4097 },
      { idstr: 'b', usedLength: 4095 },
    ]),
    'WIRE_UNEXPECTED_VALUE',
    'used length',
    'section ram / block a',
  ],
  [
    'blocks beyond the total',
    new Sample().start().section(RAM, (body) => {
      const list = new Sample();
      encodeRamBlockList(list.writer, [{ idstr: 'a', usedLength: 8192 }]);
      const bytes = list.bytes();
      bytes.writeUInt32BE(4096 | 4, 4);
      body.raw(bytes);
    }),
    'WIRE_UNEXPECTED_VALUE',
    'used length',
    'section ram / block list / block a',
  ],
  [
    'page past its block',
    started().ram('part', (into) => writeZeroRecord(into, 0, 16 * PAGE, PC_RAM)),
    'WIRE_UNEXPECTED_VALUE',
    'offset of the page',
    'section ram / block pc.ram / page 16',
  ],
  [
    'page far past its block',
    started().ram('part', (into) => {
      into.fill(0xff, 0, 8);
      into[7] = 0x02;
      into[6] = 0xf0;
      into[8] = 6;
      PC_RAM.copy(into, 9);
      return 40;
    }),
    'WIRE_UNEXPECTED_VALUE',
    'offset of the page',
    `section ram / block pc.ram / page ${(2 ** 64 - 4096) / 4096}`,
  ],
  [
    'page of an unknown block',
    started().ram('part', (into) => writeZeroRecord(into, 0, 0, Buffer.from('vga'))),
    'WIRE_UNEXPECTED_VALUE',
    'block',
    'section ram',
  ],
  [
    'CONTINUE of nothing',
    started().ram('part', (into) => writeZeroRecord(into, 0, 0, undefined)),
    'WIRE_UNEXPECTED_VALUE',
    'block',
    'section ram',
  ],
  [
    'fill byte',
    started().ram('part', (into) => {
      const end = writeZeroRecord(into, 0, 0, PC_RAM);
      into[end - 1] = 7;
      return end;
    }),
    'WIRE_UNEXPECTED_VALUE',
    'fill byte',
    'section ram / block pc.ram / page 0',
  ],
  [
    'two kinds in one record',
    started().ram('part', rawPage(0, 0x0a)),
    'WIRE_UNEXPECTED_VALUE',
    'flags of the record',
    'section ram',
  ],
  ['no kind', started().ram('part', rawPage(0x1000, 0)), 'WIRE_UNEXPECTED_VALUE', 'flags of the record', 'section ram'],
  [
    'an unknown flag',
    started().ram('part', rawPage(0, 0x400)),
    'WIRE_UNEXPECTED_VALUE',
    'flags of the record',
    'section ram',
  ],
  [
    'EOS with an address',
    started().ram('part', rawPage(0x1000, 0x10)),
    'WIRE_UNEXPECTED_VALUE',
    'address of EOS',
    'section ram',
  ],
  [
    'COMPRESS_PAGE',
    started().ram('part', rawPage(0, 0x100)),
    'WIRE_UNSUPPORTED',
    'capability compress (record COMPRESS_PAGE)',
    'section ram',
  ],
  ['HOOK', started().ram('part', rawPage(0, 0x80)), 'WIRE_UNSUPPORTED', 'RDMA (record HOOK)', 'section ram'],
  ['FULL', started().ram('part', rawPage(0, 0x01)), 'WIRE_UNSUPPORTED', 'the obsolete record FULL', 'section ram'],
  [
    'xbzrle longer than a page',
    started().ram('part', (into) => writeXbzrleHeader(into, 0, 0, PC_RAM, 4097)),
    'WIRE_UNEXPECTED_VALUE',
    'xbzrle length',
    'section ram / block pc.ram / page 0',
  ],
  [
    'xbzrle without sense',
    started().ram('part', (into) => {
      const end = writeXbzrleHeader(into, 0, 0, PC_RAM, 2);
      into.fill(0, end, end + 2);
      return end + 2;
    }),
    'WIRE_UNEXPECTED_VALUE',
    'xbzrle body',
    'section ram / block pc.ram / page 0',
  ],
  [
    'xbzrle of another encoding',
    started().ram('part', (into) => {
      const end = writeXbzrleHeader(into, 0, 0, PC_RAM, 2);
      into[end - 3] = 2;
      return end + 2;
    }),
    'WIRE_UNEXPECTED_VALUE',
    'xbzrle encoding',
    'section ram / block pc.ram / page 0',
  ],
  [
    'xbzrle in postcopy',
    advised()
      .packaged(new Sample().command({ name: 'POSTCOPY_LISTEN' }).command({ name: 'POSTCOPY_RUN' }))
      .ram('part', (into) => writeXbzrleHeader(into, 0, 0, PC_RAM, 2)),
    'WIRE_UNEXPECTED_VALUE',
    'flags of the record',
    'section ram',
  ],
  [
    'dirty-bitmap flags',
    started().section(other, (body) => body.u8(0x81)),
    'WIRE_UNEXPECTED_VALUE',
    'flags of the chunk',
    'section dirty-bitmap',
  ],
  [
    'dirty-bitmap of two kinds',
    started().section(other, (body) => body.u8(0x50)),
    'WIRE_UNEXPECTED_VALUE',
    'flags of the chunk',
    'section dirty-bitmap',
  ],
  [
    'endless dirty-bitmap',
    started().section(other, (body) => body.u8(0x40).zeros(12).u64(0x1_0000_0000)),
    'WIRE_LIMIT',
    'size of the bits',
    'section dirty-bitmap',
  ],
  [
    'vfio tag',
    started().section({ ...other, idstr: 'a/vfio' }, (body) => body.u64(0xffffffffef100009n)),
    'WIRE_UNEXPECTED_VALUE',
    'tag',
    'section a/vfio',
  ],
  [
    'endless vfio data',
    started().section({ ...other, idstr: 'a/vfio' }, (body) => body.u64(0xffffffffef100004n).u64(1n << 40n)),
    'WIRE_LIMIT',
    'length of the device data',
    'section a/vfio',
  ],
];

for (const [name, sample, code, field, path] of REFUSED) {
  test(`refused: ${name}`, () => {
    // What comes behind must not matter.
    const bytes = Buffer.concat([sample.bytes(), Buffer.alloc(64)]);
    const fault = faultIn(feed(bytes));
    assert.deepEqual(
      {
        code: fault.code,
        field: 'field' in fault ? fault.field : 'feature' in fault ? fault.feature : '',
        path: fault.path,
      },
      { code, field, path },
    );
    assert.equal(fault.stream, 'test');
    assert.ok(fault.offset <= bytes.length);
  });
}
