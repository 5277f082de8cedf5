/**
 * Rates of the loops over page records, one thread, GB/s of guest memory (page records, xbzrle) or records/s (zero).
 * `copy alone` is what the pages cost without any format around them: the decode loop should be close to it.
 *
 *   node .build/.../bench/micro/ram-records.js [MiB per run]
 */
import { Reader } from '../../src/base/index.ts';
import {
  RAM_RECORD_HEADER_MAX,
  RamDecoder,
  type RamSink,
  writePageRecord,
  writeZeroRecord,
  xbzrleDecode,
  xbzrleEncode,
} from '../../src/wire/index.ts';

const PAGE = 4096;
/** One chunk as transports read it. */
const CHUNK_PAGES = 256;
const REPEATS = 5;

/** Best of a few runs: what the loop can do when nothing else has the core. */
function rate(label: string, unit: string, amount: number, run: () => void): void {
  let bestSeconds = Infinity;
  for (let i = 0; i < REPEATS; i++) {
    const start = performance.now();
    run();
    bestSeconds = Math.min(bestSeconds, (performance.now() - start) / 1000);
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

  rate('copy alone', 'GB/s', pages * PAGE, () => {
    for (let pass = 0; pass < passes; pass++) {
      for (let page = 0; page < CHUNK_PAGES; page++) memory.copy(guest, page * PAGE, page * PAGE, (page + 1) * PAGE);
    }
  });

  let end = 0;
  rate('encode page records', 'GB/s', pages * PAGE, () => {
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
  rate('decode page records', 'GB/s', pages * PAGE, () => {
    for (let pass = 0; pass < passes; pass++) decode();
  });

  const nowhere: RamSink = { page() {}, zero() {}, read() {} };
  const counting = new RamDecoder(PAGE, [{ idstr: 'pc.ram', usedLength: guest.length }], nowhere);
  rate('decode page records, no copy', 'GB/s', pages * PAGE, () => {
    for (let pass = 0; pass < passes; pass++) {
      const reader = new Reader(out);
      reader.end = end;
      counting.decode(reader, CHUNK_PAGES);
    }
  });

  end = 0;
  for (let page = 0; page < CHUNK_PAGES; page++)
    end = writePageRecord(out, end, page * PAGE, name, memory, page * PAGE, PAGE);
  rate('decode page records, all named', 'GB/s', pages * PAGE, () => {
    for (let pass = 0; pass < passes; pass++) decode();
  });

  rate('encode zero records', 'G records/s', pages, () => {
    for (let pass = 0; pass < passes; pass++) {
      end = 0;
      for (let page = 0; page < CHUNK_PAGES; page++) {
        end = writeZeroRecord(out, end, page * PAGE, page === 0 ? name : undefined);
      }
    }
  });
  rate('decode zero records', 'G records/s', pages, () => {
    for (let pass = 0; pass < passes; pass++) decode();
  });

  for (const changes of [0, 1, 16, 128]) {
    const changed = Buffer.from(memory);
    for (let page = 0; page < CHUNK_PAGES; page++) {
      for (let i = 0; i < changes; i++) changed[page * PAGE + Math.floor((i * PAGE) / changes)]! ^= 0x55;
    }
    let length = 0;
    rate(`xbzrle encode, ${changes} changes a page`, 'GB/s', pages * PAGE, () => {
      for (let pass = 0; pass < passes; pass++) {
        for (let at = 0; at < memory.length; at += PAGE) {
          length = xbzrleEncode(memory, at, changed, at, PAGE, out, 0, PAGE);
        }
      }
    });
    if (changes === 0) continue;
    rate(`xbzrle decode, ${changes} changes a page`, 'GB/s', pages * PAGE, () => {
      for (let page = 0; page < pages; page++) xbzrleDecode(out, 0, length, guest, PAGE);
    });
  }
}

if (process.argv[1]?.endsWith('ram-records.js')) ramRecordRates(Number(process.argv[2] ?? 512));
