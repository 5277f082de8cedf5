/** The grammar where it is kept: what the parser remembers, measures and skips; and how a fault says where it is. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { FerryError } from '../../../src/base/index.ts';
import {
  encodeDescription,
  encodeEndOfStream,
  encodeRamEos,
  encodeSectionBegin,
  encodeSectionFooter,
  SECTION_FOOTER_BYTES,
  type SectionHeader,
  type StreamEvent,
  StreamInput,
  StreamParser,
  writePageRecord,
  writeZeroRecord,
} from '../../../src/wire/index.ts';
import { mappedRamSample, PC_RAM, pattern, precopySample, RAM, Sample, started, TRICKY_BODY } from '../samples.ts';
import { faultIn, feed, PAGE } from '../streams.ts';

test('an error says where in one sentence, and stays', () => {
  const bytes = started()
    .ram('part', (into) => writeZeroRecord(into, 0, 16 * PAGE, PC_RAM))
    .bytes();
  const input = new StreamInput('main tcp:127.0.0.1:4444');
  input.add({ bytes, start: 0, end: bytes.length });
  const parser = new StreamParser(input.reader);
  const run = () => {
    for (let event = parser.next(); event !== undefined; event = parser.next()) {
      if (event.kind === 'ram-blocks') parser.setRamSink({ page() {}, zero() {}, read() {} });
    }
  };
  const message =
    'main tcp:127.0.0.1:4444: offset 113: section ram / block pc.ram / page 16: offset of the page: expected at most 0xf000, found 0x10000';
  assert.throws(run, { message });
  assert.throws(run, (error) => error instanceof FerryError && error.message === message);
});

test('fact 2: CONTINUE means the block named last in any earlier section', () => {
  const data = pattern(PAGE, 3);
  const bytes = started()
    .ram('part', (into) => writeZeroRecord(into, 0, 0, Buffer.from('/rom@etc/acpi/tables')))
    .ram('end', (into) => writePageRecord(into, 0, PAGE, undefined, data, 0, PAGE))
    .eof()
    .bytes();
  const pages: string[] = [];
  const sink = {
    page: (block: number, offset: number) => void pages.push(`page ${block} ${offset}`),
    zero: (block: number, offset: number) => void pages.push(`zero ${block} ${offset}`),
    read() {},
  };
  assert.equal(feed(bytes, { sink }).error, undefined);
  assert.deepEqual(pages, ['zero 1 0', `page 1 ${PAGE}`]);
});

test('fact 1: flags are below the page size, whatever it is', () => {
  const blocks = [{ idstr: 'a', usedLength: 4 * 16384 }];
  const sample = new Sample().start({ targetPageBits: 14 }).ramStart(blocks);
  sample.ram('end', (into) => writeZeroRecord(into, 0, 3 * 16384, Buffer.from('a')));
  const zeros: number[] = [];
  const sink = { page() {}, zero: (_: number, offset: number) => void zeros.push(offset), read() {} };
  assert.equal(feed(sample.eof().bytes(), { sink }).error, undefined);
  assert.deepEqual(zeros, [3 * 16384]);
  const fault = faultIn(feed(sample.bytes(), { pageSize: 4096 }));
  assert.equal(fault.code === 'WIRE_UNEXPECTED_VALUE' && fault.field, 'target page bits');
});

test('a machine that knows a device says how long its body is', () => {
  const body = Buffer.concat([TRICKY_BODY, Buffer.from('7e00000020 00 06 00000000'.replaceAll(' ', ''), 'hex')]);
  const bytes = started().device(0x20, 'known', body).eof().bytes();
  const measureDevice = (section: SectionHeader) => (section.idstr === 'known' ? body.length : undefined);
  for (const cuts of [[], Array.from({ length: bytes.length }, (_, at) => at)]) {
    const device = feed(bytes, { measureDevice, cuts }).events.find((event) => event.kind === 'device')!;
    assert.deepEqual(device.body, body);
    assert.equal(bytes.subarray(device.bodyOffset, device.bodyOffset + body.length).equals(body), true);
  }
  // The footer inside it is plausible: without the machine's word it is taken.
  const wrong = feed(bytes).events.find((event) => event.kind === 'device')!;
  assert.equal(wrong.body.length, TRICKY_BODY.length);
  const short = faultIn(feed(bytes, { measureDevice: () => 3 }));
  assert.deepEqual([short.code, short.path], ['WIRE_UNEXPECTED_VALUE', 'section known']);
});

test('bodies above the limit are refused before they are kept', () => {
  const bytes = started().device(0x20, 'big', pattern(100_000, 5)).eof().bytes();
  const cuts = Array.from({ length: 100 }, (_, i) => i * 1024);
  assert.equal(feed(bytes, { cuts }).error, undefined);
  for (const options of [{ maxima: { deviceBody: 50_000 } }, { bytesMax: 50_000 }]) {
    const parsed = feed(bytes, { cuts, ...options });
    assert.equal(faultIn(parsed).code, 'WIRE_LIMIT');
  }
});

test('a large body costs linear time', () => {
  const body = Buffer.alloc(48 * 1024 * 1024);
  // Half footers everywhere, so that the search has to look at them.
  for (let at = 0; at < body.length; at += 512) body.writeUInt32BE(0x7e000000, at);
  const bytes = started().device(0x20, 'big', body).eof().bytes();
  const cuts = Array.from({ length: Math.ceil(bytes.length / 8192) }, (_, i) => i * 8192);
  const startMs = performance.now();
  const { events, error } = feed(bytes, { cuts });
  assert.equal(error, undefined);
  assert.equal(events.find((event) => event.kind === 'device')!.body.length, body.length);
  // Searching from the start for each of the 6,000 pieces would take minutes.
  assert.ok(performance.now() - startMs < 10_000);
});

test('mapped-ram: the driver can jump over the regions', () => {
  const bytes = mappedRamSample();
  const whole = feed(bytes);
  const input = new StreamInput('file');
  const parser = new StreamParser(input.reader);
  const events = [];
  let read = 0;
  for (;;) {
    const event = parser.next();
    if (event !== undefined) {
      events.push(event.kind === 'device' ? { ...event, body: Buffer.from(event.body) } : event);
      continue;
    }
    if (parser.finished) break;
    if (parser.skipTo !== undefined) input.seek(parser.skipTo);
    const at = input.reader.offset + input.reader.available;
    const piece = Buffer.from(bytes.subarray(at, at + 512));
    read += piece.length;
    input.release();
    input.add({ bytes: piece, start: 0, end: piece.length });
  }
  assert.deepEqual(events, whole.events);
  assert.ok(read < 4096, `${read} bytes were read of ${bytes.length}`);
  const blocks = events.find((event) => event.kind === 'ram-blocks')!.blocks;
  assert.equal(bytes[blocks[0]!.mapped!.pagesOffset + 3 * PAGE], 0x5a);
});

test('page records are illegal with mapped-ram', () => {
  const sample = mappedRamSample();
  const end = sample.lastIndexOf(Buffer.from('0300000002', 'hex'));
  const record = Buffer.alloc(64);
  const bytes = Buffer.concat([
    sample.subarray(0, end + 5),
    record.subarray(0, writeZeroRecord(record, 0, 0, PC_RAM)),
    sample.subarray(end + 5),
  ]);
  const fault = faultIn(feed(bytes));
  assert.equal(fault.code === 'WIRE_UNEXPECTED_VALUE' && fault.expected, 'no page records (mapped-ram)');
});

test('setRamSink is asked for', () => {
  const bytes = precopySample();
  const input = new StreamInput('test');
  input.add({ bytes, start: 0, end: bytes.length });
  const parser = new StreamParser(input.reader);
  assert.throws(() => parser.setRamSink({ page() {}, zero() {}, read() {} }), /setRamSink comes after/);
  assert.throws(() => {
    while (parser.next() !== undefined);
  }, /before setRamSink/);
});

test('the same name and instance may come twice (isapc of QEMU 7.2)', () => {
  const bytes = started().device(7, 'isa-ide', pattern(4, 3)).device(8, 'isa-ide', pattern(4, 5)).eof().bytes();
  assert.equal(feed(bytes).error, undefined);
});

test('ignore-shared and page sizes: fields of the block list come when they are announced', () => {
  const shared = [
    { idstr: 'mem0', usedLength: PAGE, guestAddress: 0x200000 },
    { idstr: 'rom', usedLength: PAGE, guestAddress: 0xfffc0000 },
  ];
  const blocksOf = (sample: Sample) =>
    feed(sample.eof().bytes()).events.find((event) => event.kind === 'ram-blocks')!.blocks;
  assert.deepEqual(blocksOf(new Sample().start({ capabilities: ['x-ignore-shared'] }).ramStart(shared)), shared);

  const huge = [
    { idstr: 'a', usedLength: 2 ** 21, pageSize: 2 ** 21 },
    { idstr: 'b', usedLength: PAGE },
    { idstr: 'c', usedLength: 2 ** 21, pageSize: 2 ** 21 },
  ];
  const advise = (summary: bigint) =>
    new Sample()
      .start()
      .command({ name: 'POSTCOPY_ADVISE', pageSizes: { summary, target: 4096n } })
      .ramStart(huge);
  assert.deepEqual(blocksOf(advise(0x201000n)), huge);
  const fault = faultIn(feed(advise(0x1000n).bytes()));
  assert.equal(fault.code === 'WIRE_UNEXPECTED_VALUE' && fault.field, 'page size');
});

test('an empty description and a long one', () => {
  for (const text of ['', 'x'.repeat(300_000)]) {
    const sample = started();
    encodeEndOfStream(sample.writer);
    encodeDescription(sample.writer, text);
    const { events, error } = feed(sample.bytes(), { cuts: Array.from({ length: 400 }, (_, i) => i * 1000) });
    assert.equal(error, undefined);
    assert.equal(events.at(-1)!.kind === 'description' && events.at(-1), events.at(-1));
    assert.deepEqual(
      events.filter((event) => event.kind === 'description').map((event) => event.text),
      [text],
    );
  }
});

test('a section that is never closed', () => {
  const sample = started();
  encodeSectionBegin(sample.writer, { ...RAM, kind: 'part' });
  encodeRamEos(sample.writer);
  encodeSectionFooter(sample.writer, 3);
  assert.deepEqual(faultIn(feed(sample.bytes())), {
    code: 'WIRE_UNEXPECTED_VALUE',
    stream: 'test',
    offset: sample.writer.length - 4,
    path: 'section ram',
    field: 'id in the footer',
    expected: '2',
    found: '3',
  });
});

test('the EOS of a section of RAM is told before its footer has come: a source with multifd may keep that back', () => {
  const whole = started().bytes();
  const bytes = whole.subarray(0, whole.length - SECTION_FOOTER_BYTES);
  const input = new StreamInput('main');
  input.add({ bytes, start: 0, end: bytes.length });
  const parser = new StreamParser(input.reader);
  const events: StreamEvent[] = [];
  for (let event = parser.next(); event !== undefined; event = parser.next()) {
    events.push(event);
    if (event.kind === 'ram-blocks') parser.setRamSink({ page() {}, zero() {}, read() {} });
  }
  const last = events.at(-1)!;
  assert.deepEqual([last.kind, last.offset, last.length], ['ram-eos', bytes.length - 8, 8]);
});
