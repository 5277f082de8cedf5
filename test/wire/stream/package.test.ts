/** A package as one event, read beside the stream: the same elements as when they are read inline, in the same places. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { inspect } from 'node:util';
import { FerryError } from '../../../src/base/index.ts';
import { PACKAGE_BYTES_MAX, type StreamEvent, StreamInput, StreamParser } from '../../../src/wire/index.ts';
import { advised, Sample } from '../samples.ts';
import { fixture } from '../streams.ts';

const listen = () => new Sample().command({ name: 'POSTCOPY_LISTEN' });

interface FeedOptions {
  readonly packages: 'inline' | 'whole';
  /** Chunks of this size; default all at once. */
  readonly pieceBytes?: number;
  /** More might come behind these bytes. */
  readonly goesOn?: boolean;
}

/** Events without their views of the bytes; packages are opened as they come. */
function events(bytes: Buffer, { packages, pieceBytes = bytes.length, goesOn = false }: FeedOptions): object[] {
  const input = new StreamInput('stream');
  const parser = new StreamParser(input.reader, { packages });
  const seen: object[] = [];
  const take = (from: StreamParser, event: StreamEvent) => {
    if (event.kind === 'ram-blocks') from.setRamSink({ page() {}, zero() {}, read() {} });
    if (event.kind === 'package') {
      const inner = parser.packaged(event);
      for (let one = inner.next(); one !== undefined; one = inner.next()) take(inner, one);
      assert.equal(inner.finished, true);
    } else if (event.kind === 'device') seen.push({ ...event, body: event.body.toString('hex') });
    else if (event.kind !== 'ram-batch') seen.push(event);
  };
  for (let at = 0; at < bytes.length; at += pieceBytes) {
    const piece = Buffer.from(bytes.subarray(at, at + pieceBytes));
    input.add({ bytes: piece, start: 0, end: piece.length });
    if (!goesOn && at + pieceBytes >= bytes.length) input.finish();
    for (let event = parser.next(); event !== undefined; event = parser.next()) take(parser, event);
    input.release();
  }
  return seen;
}

for (const version of ['7.2', '10.0', '11.1']) {
  test(`${version}: the package of a captured postcopy, whole or inline`, () => {
    const bytes = fixture(`postcopy-${version}`);
    const inline = events(bytes, { packages: 'inline', goesOn: true });
    assert.ok(inline.length > 35, `${inline.length} events`);
    for (const pieceBytes of [bytes.length, 777]) {
      assert.deepEqual(events(bytes, { packages: 'whole', goesOn: true, pieceBytes }), inline);
    }
  });
}

test('what comes behind the package is read on, and the order of commands counts for both', () => {
  const inner = listen().device(7, 'timer', Buffer.alloc(40, 3)).command({ name: 'POSTCOPY_RUN' });
  const bytes = advised().packaged(inner).command({ name: 'PING', value: 4 }).eof().bytes();
  const seen = events(bytes, { packages: 'whole', pieceBytes: 5 });
  assert.match(inspect(seen.at(-2)), /name: 'PING', value: 4/);
  assert.match(inspect(seen.at(-1)), /kind: 'eof'/);
  assert.deepEqual(seen, events(bytes, { packages: 'inline' }));
});

/** [name, stream, code, path] */
const REFUSED: readonly [string, Sample, string, string][] = [
  [
    'longer than a package may be',
    advised().command({ name: 'PACKAGED', length: PACKAGE_BYTES_MAX + 1 }),
    'WIRE_LIMIT',
    'command PACKAGED',
  ],
  [
    'RUN without LISTEN',
    advised().packaged(new Sample().command({ name: 'POSTCOPY_RUN' })),
    'WIRE_UNEXPECTED_VALUE',
    'package / command POSTCOPY_RUN',
  ],
  [
    'PING that is no longer whole',
    advised().packagedBytes(listen().command({ name: 'PING', value: 1 }), -1),
    'WIRE_TRUNCATED',
    'package',
  ],
  [
    'a device without footer',
    advised().packagedBytes(listen().device(7, 'timer', Buffer.alloc(9)), -5),
    'WIRE_TRUNCATED',
    'package / section timer',
  ],
  ['EOF inside', advised().packaged(listen().eof()), 'WIRE_UNEXPECTED_VALUE', 'package'],
  [
    'the stream ends in it',
    advised().command({ name: 'PACKAGED', length: 20 }).command({ name: 'POSTCOPY_LISTEN' }),
    'WIRE_TRUNCATED',
    'package',
  ],
];

for (const [name, sample, code, path] of REFUSED) {
  test(`a package is refused: ${name}`, () => {
    assert.throws(
      () => events(sample.bytes(), { packages: 'whole' }),
      (thrown) => {
        assert.ok(thrown instanceof FerryError, String(thrown));
        const fault = thrown.fault as { code: string; path: string };
        assert.deepEqual([fault.code, fault.path], [code, path]);
        return true;
      },
    );
  });
}

test('a main channel that is recovered may begin ram again that it had ended', () => {
  const inner = listen().command({ name: 'POSTCOPY_RUN' });
  const first = advised()
    .packaged(inner)
    .ram('end', () => 0);
  const input = new StreamInput('first');
  const parser = new StreamParser(input.reader, { packages: 'whole' });
  const bytes = first.bytes();
  input.add({ bytes, start: 0, end: bytes.length });
  for (let event = parser.next(); event !== undefined; event = parser.next()) {
    if (event.kind === 'ram-blocks') parser.setRamSink({ page() {}, zero() {}, read() {} });
    if (event.kind !== 'package') continue;
    const packaged = parser.packaged(event);
    while (packaged.next() !== undefined);
  }
  const second = new StreamInput('second');
  const again = new Sample()
    .command({ name: 'POSTCOPY_RESUME' })
    .ram('part', () => 0)
    .ram('end', () => 0)
    .eof()
    .bytes();
  second.add({ bytes: again, start: 0, end: again.length });
  parser.resume(second.reader);
  const kinds: string[] = [];
  for (let event = parser.next(); event !== undefined; event = parser.next()) kinds.push(event.kind);
  const section = ['section-begin', 'ram-eos', 'section-end'];
  assert.deepEqual(kinds, ['command', ...section, ...section, 'eof']);
});
