/** Sections of VFIO devices: data in pieces as it comes, configurations whole, and everything that QEMU would refuse. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Writer } from '../../../src/base/index.ts';
import {
  encodeVfioData,
  encodeVfioTag,
  type SectionHeader,
  StreamInput,
  StreamParser,
} from '../../../src/wire/index.ts';
import { pattern, Sample } from '../samples.ts';
import { faultIn, feed } from '../streams.ts';

const SECTION: SectionHeader = { kind: 'start', id: 9, idstr: '0000:00:03.0/vfio', instance: 0, version: 1 };

function started(): Sample {
  return new Sample().start();
}

function section(kind: SectionHeader['kind'], body: (writer: Writer) => void): Buffer {
  const stream = started().section(SECTION, (writer) => {
    encodeVfioTag(writer, 'DEV_SETUP_STATE');
    encodeVfioTag(writer, 'END_OF_STATE');
  });
  return stream
    .section({ ...SECTION, kind }, body)
    .eof()
    .describe('')
    .bytes();
}

/** Tags of the second section, with the bytes that they have. */
function elements(bytes: Buffer, cuts: Iterable<number> = []) {
  const parsed = feed(bytes, { cuts });
  assert.equal(parsed.error, undefined);
  return parsed.events
    .flatMap((event) => (event.kind === 'vfio' ? [event.element] : []))
    .slice(2)
    .map((element) => ('bytes' in element ? [element.tag, element.bytes] : [element.tag]));
}

const data = (writer: Writer, bytes: Buffer) => {
  encodeVfioData(writer, bytes.length);
  writer.raw(bytes);
};

test('blocks of data, an empty one among them, in any pieces', () => {
  const [a, b] = [pattern(5000, 1), pattern(3, 2)];
  const bytes = section('end', (writer) => {
    data(writer, a);
    data(writer, Buffer.alloc(0));
    data(writer, b);
    encodeVfioTag(writer, 'END_OF_STATE');
  });
  const expected = [
    ['DEV_DATA_STATE', a],
    ['DEV_DATA_STATE', Buffer.alloc(0)],
    ['DEV_DATA_STATE', b],
    ['END_OF_STATE'],
  ];
  assert.deepEqual(elements(bytes), expected);
  for (const step of [1, 2, 7, 100, 1013]) {
    const cuts = Array.from({ length: Math.floor(bytes.length / step) }, (_, i) => (i + 1) * step);
    assert.deepEqual(elements(bytes, cuts), expected, `pieces of ${step}`);
  }
});

test('data is given as it arrives and never kept', () => {
  const block = 64 * 1024 * 1024;
  const head = section('part', (writer) => encodeVfioData(writer, block)).subarray(0, -11);
  const input = new StreamInput('test');
  const parser = new StreamParser(input.reader);
  input.add({ bytes: head, start: 0, end: head.length });
  const drain = () => {
    let count = 0;
    for (let event = parser.next(); event !== undefined; event = parser.next()) {
      if (event.kind === 'vfio' && event.element.tag === 'DEV_DATA_STATE') count += event.element.bytes.length;
    }
    return count;
  };
  drain();
  const chunk = Buffer.alloc(1024 * 1024);
  for (let sent = 0; sent < block; sent += chunk.length) {
    input.release();
    assert.ok(input.reader.available < 100);
    input.add({ bytes: chunk, start: 0, end: chunk.length });
    assert.equal(drain(), chunk.length);
  }
});

test('a section ends with INIT_DATA_SENT or CONFIG_LOAD_READY as with END', () => {
  for (const tag of ['DEV_INIT_DATA_SENT', 'DEV_CONFIG_LOAD_READY', 'END_OF_STATE'] as const) {
    const bytes = section(tag === 'DEV_CONFIG_LOAD_READY' ? 'full' : 'part', (writer) => encodeVfioTag(writer, tag));
    assert.deepEqual(elements(bytes), [[tag]]);
    const ends = feed(bytes).events.filter((event) => event.kind === 'section-end');
    assert.equal(ends.length, 2);
  }
});

test('a configuration ends at the END that a footer follows, not at one inside it', () => {
  const inside = new Writer();
  encodeVfioTag(inside, 'END_OF_STATE');
  const config = Buffer.concat([pattern(90, 3), inside.bytes(), pattern(40, 4)]);
  const bytes = section('full', (writer) => {
    encodeVfioTag(writer, 'DEV_CONFIG_STATE');
    writer.raw(config);
    encodeVfioTag(writer, 'END_OF_STATE');
  });
  const expected = [['DEV_CONFIG_STATE', config], ['END_OF_STATE']];
  assert.deepEqual(elements(bytes), expected);
  for (let cut = bytes.length - 200; cut < bytes.length; cut++) assert.deepEqual(elements(bytes, [cut]), expected);
});

test('what cannot be there is refused where it stands', () => {
  const wrong = (body: (writer: Writer) => void, fault: { code: string; field?: string; found?: unknown }) => {
    const parsed = feed(section('full', body));
    const { code, path, ...rest } = faultIn(parsed);
    assert.equal(code, fault.code);
    assert.match(path ?? '', /^section 0000:00:03.0\/vfio/);
    if (fault.found !== undefined) assert.equal((rest as { found?: unknown }).found, fault.found);
  };
  wrong((writer) => writer.u64(0xffffffffef100009n), { code: 'WIRE_UNEXPECTED_VALUE', found: '0xffffffffef100009' });
  wrong((writer) => writer.u64(0x7fffffffef100001n), { code: 'WIRE_UNEXPECTED_VALUE', found: '0x7fffffffef100001' });
  // Nothing but END may follow SETUP.
  wrong(
    (writer) => {
      encodeVfioTag(writer, 'DEV_SETUP_STATE');
      encodeVfioData(writer, 0);
    },
    { code: 'WIRE_UNEXPECTED_VALUE', found: '0xffffffffef100004' },
  );
  wrong((writer) => encodeVfioData(writer, 2 ** 40), { code: 'WIRE_LIMIT', found: 2 ** 40 });
  wrong(
    (writer) => {
      encodeVfioTag(writer, 'DEV_CONFIG_STATE');
      writer.zeros(2 ** 20 + 1);
    },
    { code: 'WIRE_LIMIT' },
  );
});
