/** Streams of real QEMUs: parsed to the last byte, and written again from what was understood, byte for byte. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import test from 'node:test';
import { Writer } from '../../../src/base/index.ts';
import {
  encodeCommand,
  encodeConfiguration,
  encodeDescription,
  encodeEndOfStream,
  encodeHeader,
  encodeRamBlockList,
  encodeRamEos,
  encodeSectionBegin,
  encodeSectionFooter,
  type RamSink,
  type StreamEvent,
  StreamInput,
  StreamParser,
  writePageRecord,
  writeXbzrleHeader,
  writeZeroRecord,
  xbzrleEncode,
  xbzrleHeaderSize,
} from '../../../src/wire/index.ts';
import { feed, fixture, Memory, NOWHERE, originOf, PAGE, PROVENANCE, STREAMS } from '../streams.ts';

for (const [file, { bytes, sha256 }] of Object.entries(PROVENANCE)) {
  test(`fixture ${file} is what was captured`, () => {
    const content = fixture(file.replace('.bin.gz', ''));
    assert.equal(content.length, bytes);
    assert.equal(createHash('sha256').update(content).digest('hex'), sha256);
  });
}

/** Cut off on purpose, to be recovered (see below). */
const isCut = (name: string) => name.startsWith('postcopy-') && !name.startsWith('postcopy-advise');

for (const name of STREAMS.filter((one) => !isCut(one))) {
  test(`${name}: every byte is accounted for`, () => {
    const origin = originOf(name);
    const bytes = fixture(name);
    const { events, error } = feed(bytes.subarray(origin), { origin, sink: NOWHERE });
    assert.equal(error, undefined);
    const last = events.at(-1)!;
    assert.equal(last.kind, name.startsWith('no-vmdesc') ? 'eof' : 'description');
    assert.equal(last.offset + last.length, bytes.length);
    const machine = /-machine (?<name>[a-z][\w.-]*)/.exec(PROVENANCE[`${name}.bin.gz`]!.command)!.groups!['name'];
    const configuration = events.find((event) => event.kind === 'configuration')!.configuration;
    assert.match(configuration.machineType, new RegExp(`^${machine === 'isapc' ? 'isapc' : machine}`));
    assert.equal(configuration.targetPageBits, undefined);
  });
}

for (const name of STREAMS.filter((one) => !isCut(one) && !one.startsWith('mapped-ram'))) {
  test(`${name}: written again, it is the same`, () => {
    const bytes = fixture(name);
    const again = rewrite(bytes);
    const limit = Math.min(bytes.length, again.length);
    for (let at = 0; at < limit; at++) if (bytes[at] !== again[at]) assert.fail(`differs at offset ${at}`);
    assert.equal(again.length, bytes.length);
  });
}

/** Takes the stream apart and puts it together with our encoders. */
function rewrite(bytes: Buffer): Buffer {
  const out = new Writer(bytes.length);
  const input = new StreamInput('rewrite');
  input.add({ bytes, start: 0, end: bytes.length });
  input.finish();
  const parser = new StreamParser(input.reader);
  const records = Buffer.alloc(2 * PAGE);
  const memory = new Memory();
  let names: Buffer[] = [];
  let named = -1;
  let delta = false;
  const base = Buffer.alloc(PAGE);
  const name = (block: number) => {
    if (block === named) return undefined;
    named = block;
    return names[block];
  };
  const sink: RamSink = {
    page(block, offset, from, at) {
      if (delta) {
        const header = name(block);
        const body = xbzrleHeaderSize(header);
        const now = Buffer.from(from.subarray(at, at + PAGE));
        const length = xbzrleEncode(base, 0, now, 0, PAGE, records, body, body + PAGE);
        writeXbzrleHeader(records, 0, offset, header, length);
        out.raw(records.subarray(0, body + length));
      } else {
        out.raw(records.subarray(0, writePageRecord(records, 0, offset, name(block), from, at, PAGE)));
      }
      delta = false;
      memory.page(block, offset, from, at);
    },
    zero(block, offset) {
      out.raw(records.subarray(0, writeZeroRecord(records, 0, offset, name(block))));
      memory.zero(block, offset);
    },
    read(block, offset, into) {
      memory.read(block, offset, into);
      memory.read(block, offset, base);
      delta = true;
    },
  };
  for (let event = parser.next(); event !== undefined; event = parser.next()) {
    write(event);
  }
  return out.bytes();

  function write(event: StreamEvent): void {
    switch (event.kind) {
      case 'header':
        encodeHeader(out);
        break;
      case 'configuration':
        encodeConfiguration(out, event.configuration);
        break;
      case 'command':
        encodeCommand(out, event.command);
        break;
      case 'section-begin':
        encodeSectionBegin(out, event.section);
        break;
      case 'ram-blocks':
        parser.setRamSink(sink);
        names = event.blocks.map((block) => Buffer.from(block.idstr));
        encodeRamBlockList(out, event.blocks);
        break;
      case 'multifd-flush':
      case 'ram-batch':
        break;
      case 'section-end':
        encodeRamEos(out);
        encodeSectionFooter(out, event.section.id);
        break;
      case 'device':
        encodeSectionBegin(out, event.section);
        out.raw(event.body);
        encodeSectionFooter(out, event.section.id);
        break;
      case 'eof':
        encodeEndOfStream(out);
        break;
      case 'description':
        encodeDescription(out, event.text);
        break;
    }
  }
}

for (const version of ['7.2', '10.0', '11.1']) {
  test(`${version}: a postcopy stream that is cut and recovered`, () => {
    const first = new StreamInput('first');
    const parser = new StreamParser(first.reader);
    const bytes = fixture(`postcopy-${version}`);
    first.add({ bytes, start: 0, end: bytes.length });
    const before = drain(parser);
    const commands = before.filter((event) => event.kind === 'command').map((event) => event.command);
    const names = commands.map((command) => command.name);
    assert.deepEqual(
      names.filter((one) => one !== 'POSTCOPY_RAM_DISCARD'),
      [
        ...['OPEN_RETURN_PATH', 'PING', 'POSTCOPY_ADVISE', 'PING', 'PACKAGED', 'POSTCOPY_LISTEN', 'PING'],
        ...(version === '11.1' ? ['PING'] : []),
        ...['POSTCOPY_RUN', 'PING'],
      ],
    );
    const advise = commands.find((command) => command.name === 'POSTCOPY_ADVISE')!;
    assert.deepEqual(advise.pageSizes, { summary: 4096n, target: 4096n });
    const discards = commands.filter((command) => command.name === 'POSTCOPY_RAM_DISCARD');
    assert.ok(discards.length > 0 && discards.every((discard) => discard.ranges.length <= 12));
    const devices = before.filter((event) => event.kind === 'device').length;
    assert.ok(devices >= 29, `${devices} devices came in the package`);

    // The pages that were under way are lost with the first connection.
    const second = new StreamInput('second');
    const recovery = fixture(`postcopy-${version}.recovery`);
    second.add({ bytes: recovery, start: 0, end: recovery.length });
    second.finish();
    parser.resume(second.reader);
    const after = drain(parser);
    assert.equal(parser.finished, true);
    assert.equal(second.reader.available, 0);
    const again = after.filter((event) => event.kind === 'command').map((event) => event.command.name);
    assert.equal(again.at(-1), 'POSTCOPY_RESUME');
    assert.ok(again.length >= 4 && again.slice(0, -1).every((one) => one === 'RECV_BITMAP'));
    assert.equal(after.at(-1)!.kind, 'eof');
  });
}

function drain(parser: StreamParser): StreamEvent[] {
  const events: StreamEvent[] = [];
  for (let event = parser.next(); event !== undefined; event = parser.next()) {
    if (event.kind === 'ram-blocks') parser.setRamSink(new Memory());
    events.push(event);
  }
  return events;
}

test('a device at the end of a stream without description is complete only when the driver says so', () => {
  const bytes = fixture('no-vmdesc-7.2');
  const input = new StreamInput('silent');
  input.add({ bytes, start: 0, end: bytes.length });
  const parser = new StreamParser(input.reader);
  const events = drain(parser);
  assert.notEqual((events.at(-1) as { section?: { idstr: string } }).section?.idstr, 'globalstate');
  parser.assumeSilent();
  const rest = drain(parser);
  assert.deepEqual(
    rest.map((event) => event.kind),
    ['device', 'eof'],
  );
  assert.equal(parser.finished, false, 'a description might still come');
});
