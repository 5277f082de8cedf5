import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import {
  type Frame,
  JSON_NESTING_MAX,
  JSON_TEXT_BYTES_MAX,
  JsonFramer,
  readJson,
  writeJson,
} from '../../src/control/framing.ts';

function frames(...chunks: (string | Uint8Array)[]): Frame[] {
  const framer = new JsonFramer();
  return chunks.flatMap((chunk) => framer.push(Buffer.from(chunk as string)));
}

function texts(...chunks: string[]): string[] {
  return frames(...chunks).map((frame) => (frame.kind === 'text' ? frame.text : frame.kind));
}

test('a value ends where its brackets close, wherever lines and chunks end', () => {
  assert.deepEqual(texts('{"a":1}'), ['{"a":1}']);
  assert.deepEqual(texts('{"a":', '1}{"b"', ':2} [', ']'), ['{"a":1}', '{"b":2}', '[]']);
  assert.deepEqual(texts(' \r\n\t{\n"a"\n:\n1\n}\n\n'), ['{\n"a"\n:\n1\n}']);
});

test('brackets and quotes inside strings do not count', () => {
  assert.deepEqual(texts('{"a":"}]\\"{"}{}'), ['{"a":"}]\\"{"}', '{}']);
  assert.deepEqual(texts('{"a":"\\\\"}', '"}"', ' 1'), ['{"a":"\\\\"}', '"}"']);
});

test('bare words end with what cannot belong to them', () => {
  assert.deepEqual(texts('12 true,', '\nnull{}'), ['12', 'true', 'stray', 'null', '{}']);
});

test('bytes that begin nothing are named once and skipped to the end of the line', () => {
  assert.deepEqual(frames(Buffer.from([0x80, 0xff, 0xfe]), '}}} {}\n{}'), [
    { kind: 'stray', byte: 0x80 },
    { kind: 'text', text: '{}' },
  ]);
});

test('a text may be as long as the bound and no longer', () => {
  const longest = JSON.stringify('x'.repeat(JSON_TEXT_BYTES_MAX - 2));
  assert.deepEqual(texts(longest), [longest]);
  const half = Math.floor(longest.length / 2);
  assert.deepEqual(texts(longest.slice(0, half), longest.slice(half)), [longest]);
  assert.deepEqual(texts(`{"a":${longest}}`, '{}'), ['overflow']);
  assert.deepEqual(texts('{"a":"', ...Array.from({ length: 40 }, () => 'x'.repeat(32 * 1024)), '"}'), ['overflow']);
});

test('nesting is bounded', () => {
  const deepest = '['.repeat(JSON_NESTING_MAX) + ']'.repeat(JSON_NESTING_MAX);
  assert.deepEqual(texts(deepest), [deepest]);
  assert.deepEqual(texts(`[${deepest}]`, '{}'), ['overflow']);
});

test('any values, any white space between them, any split: the same values', () => {
  const value = fc.oneof(fc.object({ withNullPrototype: false }), fc.array(fc.jsonValue()), fc.string());
  const space = fc.constantFrom('', ' ', '\n', '\r\n', '\t');
  fc.assert(
    fc.property(fc.array(fc.tuple(value, space)), fc.infiniteStream(fc.integer({ min: 1, max: 7 })), (items, cuts) => {
      const stream = Buffer.from(items.map(([item, between]) => JSON.stringify(item) + between).join(''));
      const framer = new JsonFramer();
      const got: Frame[] = [];
      for (let at = 0; at < stream.length; ) {
        const size = cuts.next().value;
        got.push(...framer.push(stream.subarray(at, at + size)));
        at += size;
      }
      assert.deepEqual(
        got.map((frame) => frame.kind === 'text' && readJson(frame.text)),
        items.map(([item]) => ({ value: JSON.parse(JSON.stringify(item)) })),
      );
    }),
    { seed: 7, numRuns: 300 },
  );
});

test('any bytes: frames, never an exception, and none after the framer gave up', () => {
  const structural = fc.constantFrom(...Buffer.from('{}[]"\\ \n,:1tx\x80'));
  fc.assert(
    fc.property(fc.array(fc.array(structural, { maxLength: 40 })), (chunks) => {
      const all = frames(...chunks.map((chunk) => Uint8Array.from(chunk)));
      const end = all.findIndex(({ kind }) => kind === 'overflow');
      assert.ok(end === -1 || end === all.length - 1);
      for (const frame of all) if (frame.kind === 'text') readJson(frame.text);
    }),
    { seed: 8, numRuns: 500 },
  );
});

test('a value is written on one line that ends with CR LF, large whole numbers exactly', () => {
  assert.equal(writeJson({ a: [1, 'x\ny', null, true], b: undefined }), '{"a": [1, "x\\ny", null, true]}\r\n');
  assert.equal(writeJson(2 ** 63 - 2 ** 20), '9223372036853727232\r\n');
  assert.equal(writeJson(2 ** 64), '18446744073709551615\r\n');
  assert.equal(writeJson(0.25), '0.25\r\n');
});

test('what is written reads back', () => {
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      const plain: unknown = JSON.parse(JSON.stringify(value));
      assert.deepEqual(readJson(writeJson(plain)), { value: plain });
    }),
    { seed: 9, numRuns: 300 },
  );
});
