/**
 * Rates of the loops over page records, GB of guest memory a CPU second (page records, xbzrle) or records/s (zero).
 * `copy alone` is what the pages cost without any format around them: the decode loop should be close to it.
 *
 *   node .build/.../bench/micro/ram-records.js [MiB per run]
 */
import { Reader, Writer } from '../../src/base/index.ts';
import {
  encodeConfiguration,
  encodeEndOfStream,
  encodeHeader,
  encodeRamBlockList,
  encodeRamEos,
  encodeSectionBegin,
  encodeSectionFooter,
  RAM_RECORD_HEADER_MAX,
  RAM_SECTION_VERSION,
  RamDecoder,
  type RamSink,
  StreamInput,
  StreamParser,
  writePageRecord,
  writeZeroRecord,
  xbzrleDecode,
  xbzrleEncode,
} from '../../src/wire/index.ts';

const PAGE = 4096;
/** One chunk as transports read it. */
const CHUNK_PAGES = 256;
const CHUNK_BYTES = 1024 * 1024;
const HEADROOM = 8192;
const CHUNKS = [Buffer.alloc(HEADROOM + CHUNK_BYTES), Buffer.alloc(HEADROOM + CHUNK_BYTES)];
const REPEATS = 5;

/** Best of a few runs, in CPU time, so that others on the machine count less. */
function rate(label: string, unit: string, amount: number, run: () => void): void {
  let bestSeconds = Infinity;
  for (let i = 0; i < REPEATS; i++) {
    const start = process.cpuUsage();
    run();
    const { user, system } = process.cpuUsage(start);
    bestSeconds = Math.min(bestSeconds, (user + system) / 1e6);
  }
  console.log(`${label.padEnd(34)} ${(amount / bestSeconds / 1e9).toFixed(3).padStart(8)} ${unit}`);
}

export function ramRecordRates(mebibytes: number): void {
  const passes = Math.max(1, Math.round((mebibytes * 256) / CHUNK_PAGES));
  const pages = passes * CHUNK_PAGES;
  const memory = Buffer.alloc(CHUNK_PAGES * PAGE);
  for (let i = 0; i < memory.length; i++) memory[i] = (i * 31 + (i >>> 8)) & 0xff;
  const guest = Buffer.alloc(CHUNK_PAGES * PAGE);
  const out = Buffer.allocUnsafe(CHUNK_PAGES * (PAGE + RAM_RECORD_HEADER_MAX));
  const name = Buffer.from('pc.ram');
  const sink: RamSink = {
    page: (_block, offset, from, at) => void from.copy(guest, offset, at, at + PAGE),
    zero: () => {},
    read: (_block, offset, into) => void guest.copy(into, 0, offset, offset + PAGE),
  };

  rate('copy alone', 'GB/CPU s', pages * PAGE, () => {
    for (let pass = 0; pass < passes; pass++) {
      for (let page = 0; page < CHUNK_PAGES; page++) memory.copy(guest, page * PAGE, page * PAGE, (page + 1) * PAGE);
    }
  });

  let end = 0;
  rate('encode page records', 'GB/CPU s', pages * PAGE, () => {
    for (let pass = 0; pass < passes; pass++) {
      end = 0;
      for (let page = 0; page < CHUNK_PAGES; page++) {
        end = writePageRecord(out, end, page * PAGE, page === 0 ? name : undefined, memory, page * PAGE, PAGE);
      }
    }
  });

  const decoder = new RamDecoder(PAGE, [{ idstr: 'pc.ram', usedLength: guest.length }], sink);
  const decode = () => {
    const reader = new Reader(out);
    reader.end = end;
    decoder.decode(reader, CHUNK_PAGES);
  };
  rate('decode page records', 'GB/CPU s', pages * PAGE, () => {
    for (let pass = 0; pass < passes; pass++) decode();
  });

  const nowhere: RamSink = { page() {}, zero() {}, read() {} };
  const counting = new RamDecoder(PAGE, [{ idstr: 'pc.ram', usedLength: guest.length }], nowhere);
  rate('decode page records, no copy', 'GB/CPU s', pages * PAGE, () => {
    for (let pass = 0; pass < passes; pass++) {
      const reader = new Reader(out);
      reader.end = end;
      counting.decode(reader, CHUNK_PAGES);
    }
  });

  end = 0;
  for (let page = 0; page < CHUNK_PAGES; page++)
    end = writePageRecord(out, end, page * PAGE, name, memory, page * PAGE, PAGE);
  rate('decode page records, all named', 'GB/CPU s', pages * PAGE, () => {
    for (let pass = 0; pass < passes; pass++) decode();
  });

  const stream = pagesStream(memory);
  rate('stream parser, chunks of 1 MiB', 'GB/CPU s', passes * memory.length, () => {
    for (let pass = 0; pass < passes; pass++) parseInChunks(stream, sink);
  });

  rate('encode zero records', 'G records/CPU s', pages, () => {
    for (let pass = 0; pass < passes; pass++) {
      end = 0;
      for (let page = 0; page < CHUNK_PAGES; page++) {
        end = writeZeroRecord(out, end, page * PAGE, page === 0 ? name : undefined);
      }
    }
  });
  rate('decode zero records', 'G records/CPU s', pages, () => {
    for (let pass = 0; pass < passes; pass++) decode();
  });

  for (const changes of [0, 1, 16, 128]) {
    const changed = Buffer.from(memory);
    for (let page = 0; page < CHUNK_PAGES; page++) {
      for (let i = 0; i < changes; i++) changed[page * PAGE + Math.floor((i * PAGE) / changes)]! ^= 0x55;
    }
    let length = 0;
    rate(`xbzrle encode, ${changes} changes a page`, 'GB/CPU s', pages * PAGE, () => {
      for (let pass = 0; pass < passes; pass++) {
        for (let at = 0; at < memory.length; at += PAGE) {
          length = xbzrleEncode(memory, at, changed, at, PAGE, out, 0, PAGE);
        }
      }
    });
    if (changes === 0) continue;
    rate(`xbzrle decode, ${changes} changes a page`, 'GB/CPU s', pages * PAGE, () => {
      for (let page = 0; page < pages; page++) xbzrleDecode(out, 0, length, guest, PAGE);
    });
  }
}

/** A whole stream with one PART section that holds all pages of `memory`. */
function pagesStream(memory: Buffer): Buffer {
  const ram = { kind: 'start', id: 1, idstr: 'ram', instance: 0, version: RAM_SECTION_VERSION } as const;
  const writer = new Writer(memory.length + 100_000);
  encodeHeader(writer);
  encodeConfiguration(writer, {
    machineType: 'm',
    targetPageBits: undefined,
    capabilities: undefined,
    uuid: undefined,
  });
  encodeSectionBegin(writer, ram);
  encodeRamBlockList(writer, [{ idstr: 'pc.ram', usedLength: memory.length }]);
  encodeRamEos(writer);
  encodeSectionFooter(writer, ram.id);
  encodeSectionBegin(writer, { ...ram, kind: 'part' });
  const record = Buffer.alloc(RAM_RECORD_HEADER_MAX + PAGE);
  for (let at = 0; at < memory.length; at += PAGE) {
    const name = at === 0 ? Buffer.from('pc.ram') : undefined;
    writer.raw(record.subarray(0, writePageRecord(record, 0, at, name, memory, at, PAGE)));
  }
  encodeRamEos(writer);
  encodeSectionFooter(writer, ram.id);
  encodeEndOfStream(writer);
  return Buffer.from(writer.bytes());
}

/** As a transport does it: two buffers in turn, each with room in front. The copy into them stands for the kernel's. */
function parseInChunks(stream: Buffer, sink: RamSink): void {
  const input = new StreamInput('bench');
  const parser = new StreamParser(input.reader);
  let at = 0;
  while (!parser.finished) {
    const event = parser.next();
    if (event?.kind === 'ram-blocks') parser.setRamSink(sink);
    if (event !== undefined) continue;
    input.release();
    const chunk = CHUNKS[Math.ceil(at / CHUNK_BYTES) % CHUNKS.length]!;
    const size = stream.copy(chunk, HEADROOM, at, at + CHUNK_BYTES);
    if (size === 0) input.finish();
    else input.add({ bytes: chunk, start: HEADROOM, end: HEADROOM + size });
    at += size;
  }
}

if (process.argv[1]?.endsWith('ram-records.js')) ramRecordRates(Number(process.argv[2] ?? 512));
