/** Small streams of our own that hold every kind of element once, so that they can be cut and damaged at every byte. */
import { Writer } from '../../src/base/index.ts';
import {
  type Command,
  type Configuration,
  encodeCommand,
  encodeConfiguration,
  encodeDescription,
  encodeEndOfStream,
  encodeHeader,
  encodeRamBlock,
  encodeRamBlockList,
  encodeRamEos,
  encodeRamTotal,
  encodeSectionBegin,
  encodeSectionFooter,
  MAPPED_RAM_ALIGNMENT,
  mappedRamLayout,
  type SectionHeader,
  type StreamRamBlock,
  VFIO_TAG,
  writeEos,
  writeMultifdFlush,
  writePageRecord,
  writeXbzrleHeader,
  writeZeroRecord,
} from '../../src/wire/index.ts';
import { PAGE } from './streams.ts';

export const RAM: SectionHeader = { kind: 'start', id: 2, idstr: 'ram', instance: 0, version: 4 };
export const BLOCKS: readonly StreamRamBlock[] = [
  { idstr: 'pc.ram', usedLength: 16 * PAGE },
  { idstr: '/rom@etc/acpi/tables', usedLength: 2 * PAGE },
];

export class Sample {
  readonly writer = new Writer();
  readonly #records = Buffer.alloc(8 * PAGE);

  start(configuration: Partial<Configuration> = {}): this {
    encodeHeader(this.writer);
    encodeConfiguration(this.writer, {
      machineType: 'pc-i440fx-7.2',
      targetPageBits: undefined,
      capabilities: undefined,
      uuid: undefined,
      ...configuration,
    });
    return this;
  }

  command(command: Command): this {
    encodeCommand(this.writer, command);
    return this;
  }

  section(section: SectionHeader, body: (body: Writer) => void = () => {}): this {
    encodeSectionBegin(this.writer, section);
    body(this.writer);
    encodeSectionFooter(this.writer, section.id);
    return this;
  }

  device(id: number, idstr: string, body: Uint8Array): this {
    return this.section({ kind: 'full', id, idstr, instance: 0, version: 1 }, (writer) => writer.raw(body));
  }

  /** The bytes of `inner`, packaged. */
  packaged(inner: Sample): this {
    return this.packagedBytes(inner, 0);
  }

  /** The same, with `change` bytes less (negative) than there are: the last element is not whole. */
  packagedBytes(inner: Sample, change: number): this {
    const bytes = inner.writer.bytes();
    this.command({ name: 'PACKAGED', length: bytes.length + change });
    this.writer.raw(bytes.subarray(0, bytes.length + change));
    return this;
  }

  ramStart(blocks = BLOCKS): this {
    return this.section(RAM, (body) => {
      encodeRamBlockList(body, blocks);
      encodeRamEos(body);
    });
  }

  ram(kind: 'part' | 'end', write: (into: Buffer) => number): this {
    return this.section({ ...RAM, kind }, (body) => {
      const end = write(this.#records);
      body.raw(this.#records.subarray(0, writeEos(this.#records, end)));
    });
  }

  eof(): this {
    encodeEndOfStream(this.writer);
    return this;
  }

  describe(text: string): this {
    encodeDescription(this.writer, text);
    return this;
  }

  bytes(): Buffer {
    return Buffer.from(this.writer.bytes());
  }
}

export function pattern(length: number, seed: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let i = 0; i < length; i++) bytes[i] = (i * seed + (i >>> 8)) & 0xff;
  return bytes;
}

export const PC_RAM = Buffer.from('pc.ram');
const TABLES = Buffer.from('/rom@etc/acpi/tables');

/** A device body with footers of its own section in it, each followed by something that cannot follow a section. */
export const TRICKY_BODY = Buffer.concat([
  Buffer.from('7e00000020', 'hex'),
  Buffer.from('ff', 'hex'),
  Buffer.from('7e000000207e00000020', 'hex'),
  Buffer.from('0400000021', 'hex'),
  Buffer.from('7e000000200400000021', 'hex'),
  Buffer.from('03616200', 'hex'),
  Buffer.from('7e00000020080063', 'hex'),
  Buffer.from('7e0000002002000000', 'hex'),
  Buffer.from('7e00000020000600', 'hex').subarray(0, 6),
  Buffer.from('7e000000', 'hex'),
]);

/** Precopy with return path, page records of every kind, iterables of every kind. */
export function precopySample(): Buffer {
  const data = pattern(PAGE, 7);
  const bitmap: SectionHeader = { kind: 'start', id: 3, idstr: 'dirty-bitmap', instance: 0, version: 1 };
  const vfio: SectionHeader = { kind: 'start', id: 4, idstr: '0000:00:04.0/vfio', instance: 0, version: 1 };
  const other: SectionHeader = { kind: 'start', id: 5, idstr: 'foreign', instance: 1, version: 2 };
  const tag = (writer: Writer, value: number) => writer.u32(0xffffffff).u32(value);
  return new Sample()
    .start({ uuid: pattern(16, 3), targetPageBits: 12 })
    .command({ name: 'OPEN_RETURN_PATH' })
    .command({ name: 'PING', value: 1 })
    .device(9, 'virtio-mem-early', pattern(30, 5))
    .ramStart()
    .section(bitmap, (body) => {
      body
        .u8(0x10 | 0x08 | 0x04)
        .cstr('disk0')
        .cstr('bitmap0')
        .u32(65536)
        .u8(1);
      body
        .u8(0x40 | 0x02)
        .u64(0)
        .u32(128);
      body.u8(0x01);
    })
    .section(vfio, (body) => tag(tag(body, VFIO_TAG.DEV_SETUP_STATE), VFIO_TAG.END_OF_STATE))
    .section(other, (body) => body.raw(pattern(40, 11)))
    .ram('part', (into) => {
      let pos = writeZeroRecord(into, 0, 0, PC_RAM);
      pos = writePageRecord(into, pos, PAGE, undefined, data, 0, PAGE);
      pos = writePageRecord(into, pos, 0, TABLES, data, 0, PAGE);
      return writeMultifdFlush(into, pos);
    })
    .section({ ...vfio, kind: 'part' }, (body) => {
      tag(body, VFIO_TAG.DEV_DATA_STATE).u64(20).raw(pattern(20, 13));
      tag(body, VFIO_TAG.DEV_INIT_DATA_SENT);
    })
    .section({ ...other, kind: 'part' }, (body) => body.raw(pattern(3, 17)))
    .section({ ...bitmap, kind: 'part' }, (body) => body.u8(0x40).u64(0).u32(1).u64(6).raw(pattern(6, 19)).u8(0x01))
    .ram('part', (into) => {
      const pos = writeZeroRecord(into, 0, PAGE, undefined);
      const end = writeXbzrleHeader(into, pos, PAGE, PC_RAM, 5);
      return end + Buffer.from('80010211bb', 'hex').copy(into, end);
    })
    .command({ name: 'SWITCHOVER_START' })
    .ram('end', (into) => writePageRecord(into, 0, 2 * PAGE, undefined, data, 0, PAGE))
    .section({ ...bitmap, kind: 'end' }, (body) =>
      body
        .u8(0x20 | 0x08 | 0x04)
        .cstr('disk0')
        .cstr('bitmap0')
        .u8(0x01),
    )
    .section({ ...vfio, kind: 'end' }, (body) => {
      tag(body, VFIO_TAG.DEV_DATA_STATE).u64(0);
      tag(body, VFIO_TAG.END_OF_STATE);
    })
    .section({ ...other, kind: 'end' }, (body) => body.raw(pattern(7, 23)))
    .device(0x20, 'tricky', TRICKY_BODY)
    .section({ ...vfio, kind: 'full' }, (body) => {
      tag(body, VFIO_TAG.DEV_CONFIG_STATE).raw(pattern(60, 29));
      tag(body, VFIO_TAG.END_OF_STATE).raw(pattern(10, 31));
      tag(body, VFIO_TAG.END_OF_STATE);
    })
    .device(0x21, 'empty', Buffer.alloc(0))
    .eof()
    .describe('{"devices": []}')
    .bytes();
}

/** Postcopy to its end, without recovery. */
/** A stream up to its first section of RAM, with that. */
export function started(): Sample {
  return new Sample().start().ramStart();
}

/** The same, and a package may come. */
export function advised(): Sample {
  return new Sample()
    .start()
    .command({ name: 'OPEN_RETURN_PATH' })
    .command({ name: 'POSTCOPY_ADVISE', pageSizes: { summary: 4096n, target: 4096n } })
    .ramStart();
}

export function postcopySample(): Buffer {
  const data = pattern(PAGE, 7);
  return new Sample()
    .start()
    .command({ name: 'OPEN_RETURN_PATH' })
    .command({ name: 'PING', value: 1 })
    .command({ name: 'POSTCOPY_ADVISE', pageSizes: { summary: 0x201000n, target: 4096n } })
    .ramStart([BLOCKS[0]!, { idstr: 'huge', usedLength: 2 * 1024 * 1024, pageSize: 2 * 1024 * 1024 }])
    .ram('part', (into) => writePageRecord(into, 0, PAGE, PC_RAM, data, 0, PAGE))
    .command({ name: 'POSTCOPY_RAM_DISCARD', block: 'pc.ram', ranges: [{ start: 0, length: 4096 }] })
    .command({ name: 'PING', value: 2 })
    .packaged(
      new Sample()
        .command({ name: 'POSTCOPY_LISTEN' })
        .device(0x20, 'tricky', TRICKY_BODY)
        .device(0x21, 'last', pattern(9, 5))
        .command({ name: 'PING', value: 3 })
        .command({ name: 'POSTCOPY_RUN' }),
    )
    .command({ name: 'PING', value: 4 })
    .ram('part', (into) => {
      const pos = writePageRecord(into, 0, 2 * PAGE, undefined, data, 0, PAGE);
      return writeZeroRecord(into, pos, PAGE, Buffer.from('huge'));
    })
    .ram('end', () => 0)
    .eof()
    .bytes();
}

/** A mapped-ram file, and one byte of page 3 of pc.ram set in it. */
export function mappedRamSample(): Buffer {
  const sample = new Sample().start({ capabilities: ['mapped-ram'] });
  encodeSectionBegin(sample.writer, RAM);
  encodeRamTotal(sample.writer, 18 * PAGE);
  const places = mappedRamLayout(sample.writer.length, BLOCKS, PAGE);
  for (const [index, block] of BLOCKS.entries()) {
    const { bitmapOffset, pagesOffset, pageSize, end } = places[index]!;
    encodeRamBlock(sample.writer, { ...block, mapped: { bitmapOffset, pagesOffset, pageSize } });
    sample.writer.zeros(end - bitmapOffset);
  }
  encodeRamEos(sample.writer);
  encodeSectionFooter(sample.writer, RAM.id);
  sample.ram('part', () => 0).ram('end', () => 0);
  const bytes = sample.device(0x20, 'tricky', TRICKY_BODY).eof().describe('').bytes();
  bytes[MAPPED_RAM_ALIGNMENT + 3 * PAGE] = 0x5a;
  return bytes;
}
