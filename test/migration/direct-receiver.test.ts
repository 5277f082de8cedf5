/**
 * Pages received straight into guest memory: whatever order the records come in and however the bytes are cut, the memory is that of the
 * stream. Random streams over a real socket; the machine's own verification is the oracle.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Writer } from '../../src/base/index.ts';
import { createWorkload, type WorkloadMachine } from '../../src/machine/index.ts';
import { IncomingMigration } from '../../src/migration/index.ts';
import { canVector } from '../../src/native/index.ts';
import { type Channel, connect, listen } from '../../src/transport/index.ts';
import {
  encodeRamEos,
  encodeSectionBegin,
  encodeSectionFooter,
  type StreamEvent,
  StreamInput,
  StreamParser,
  writePageRecord,
  writeZeroRecord,
} from '../../src/wire/index.ts';
import { assertCompleted } from '../support/completed.ts';
import { oneChannel, testSettings } from '../support/move.ts';
import { recordStream } from '../support/streams.ts';

const MIB = 1024 * 1024;
const PAGE = 4096;
const RAM = { idstr: 'ram', id: 1, instance: 0, version: 4 };

/** Small deterministic generator: the seed is all that is needed to see a failure again. */
function random(seed: number): (below: number) => number {
  let state = seed >>> 0 || 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

interface Page {
  readonly block: string;
  readonly offset: number;
  readonly bytes: Buffer | undefined;
}

/** Every page of the machine; zero ones without bytes. */
function pagesOf(machine: WorkloadMachine): Page[] {
  const zero = Buffer.alloc(PAGE);
  return machine.ram.flatMap((block) =>
    Array.from({ length: block.usedLength / PAGE }, (_, page) => {
      const window = machine.window(block.index, page);
      const at = (page - window.firstPage) * PAGE;
      const bytes = Buffer.from(window.bytes.subarray(at, at + PAGE));
      return { block: block.idstr, offset: page * PAGE, bytes: bytes.equals(zero) ? undefined : bytes };
    }),
  );
}

/** PART sections with these records; CONTINUE wherever it may stand. */
function parts(pages: readonly Page[], perPart: number): Buffer {
  const writer = new Writer(pages.length * PAGE);
  const record = Buffer.alloc(8 + 256 + PAGE + 8);
  let named = '';
  for (let first = 0; first < pages.length; first += perPart) {
    encodeSectionBegin(writer, { kind: 'part', ...RAM });
    for (const { block, offset, bytes } of pages.slice(first, first + perPart)) {
      const name = block === named ? undefined : Buffer.from(block, 'latin1');
      named = block;
      const end =
        bytes === undefined
          ? writeZeroRecord(record, 0, offset, name)
          : writePageRecord(record, 0, offset, name, bytes, 0, PAGE);
      writer.raw(record.subarray(0, end));
    }
    encodeRamEos(writer);
    encodeSectionFooter(writer, RAM.id);
  }
  return Buffer.from(writer.bytes());
}

/** Pages in runs: mostly in order, broken off and taken up elsewhere, some twice, some with wrong content first. */
function shuffled(pages: readonly Page[], next: (below: number) => number): Page[] {
  const runs: Page[][] = [];
  for (let at = 0; at < pages.length; ) {
    const length = next(4) === 0 ? 1 + next(3) : 1 + next(600);
    runs.push(pages.slice(at, at + length));
    at += length;
  }
  for (let i = runs.length - 1; i > 0; i--) {
    if (next(3) !== 0) continue;
    const other = next(i + 1);
    [runs[i], runs[other]] = [runs[other]!, runs[i]!];
  }
  const early = runs.filter(() => next(4) === 0).map((run) => run.map((page) => ({ ...page, bytes: garbage(next) })));
  return [...early.flat(), ...runs.flat()];
}

function garbage(next: (below: number) => number): Buffer | undefined {
  return next(3) === 0 ? undefined : Buffer.alloc(PAGE, 1 + next(255));
}

/** Stream offset of the first event that matches. */
function offsetOf(bytes: Buffer, matches: (event: StreamEvent) => boolean): number {
  const input = new StreamInput('recorded');
  const parser = new StreamParser(input.reader);
  input.add({ bytes, start: 0, end: bytes.length });
  for (let event = parser.next(); event !== undefined; event = parser.next()) {
    if (event.kind === 'ram-blocks') parser.setRamSink({ page() {}, zero() {}, read() {} });
    if (matches(event)) return event.offset;
  }
  throw new Error('no such event');
}

async function receive(machine: WorkloadMachine, bytes: Buffer, next: (below: number) => number): Promise<number> {
  const listener = await listen({ kind: 'tcp', host: '127.0.0.1', port: 0 });
  let directBytes = 0;
  const counted = (channel: Channel): Channel => {
    const { direct } = channel;
    assert.ok(direct !== undefined);
    const receive = direct.receive.bind(direct);
    direct.receive = (vector) => {
      const count = receive(vector);
      directBytes += count;
      return count;
    };
    return channel;
  };
  const migration = new IncomingMigration({
    machine,
    settings: testSettings(),
    takesAnyMachine: false,
    listener: oneChannel(async (signal) => counted(await listener.accept(signal))),
  });
  const done = migration.run();
  const channel = await connect(listener.address);
  for (let at = 0; at < bytes.length; ) {
    const length = next(3) === 0 ? 1 + next(9000) : 1 + next(3 * MIB);
    await channel.write(bytes.subarray(at, at + length));
    at += length;
  }
  await channel.end();
  const result = await done;
  listener.close();
  channel.destroy();
  assertCompleted(result);
  return directBytes;
}

test('random record order and random cuts: the memory is that of the stream', {
  skip: !canVector() && 'no FFI here',
}, async (t) => {
  const source = await createWorkload({
    ram: 12 * MIB,
    vcpus: 1,
    dirtyRate: 20e6,
    pattern: 'uniform',
    fill: 0.7,
    seed: 5,
  });
  t.after(() => source.dispose());
  await source.resume();
  while (source.statistics.operations < 3000) await new Promise((resolve) => setImmediate(resolve));
  await source.stop('paused');
  const pages = pagesOf(source);
  const recorded = await recordStream(source);
  const ramAt = offsetOf(recorded, (event) => event.kind === 'section-begin' && event.section.kind !== 'start');
  const devicesAt = offsetOf(recorded, (event) => event.kind === 'device');
  const [head, tail] = [recorded.subarray(0, ramAt), recorded.subarray(devicesAt)];
  const end = new Writer();
  encodeSectionBegin(end, { kind: 'end', ...RAM });
  encodeRamEos(end);
  encodeSectionFooter(end, RAM.id);
  let direct = 0;
  for (let seed = 1; seed <= 12; seed++) {
    const next = random(seed * 7919);
    const records = seed === 1 ? pages : shuffled(pages, next);
    const bytes = Buffer.concat([head, parts(records, 1 + next(2000)), end.bytes(), tail]);
    const machine = await createWorkload({ ram: 12 * MIB, vcpus: 1, incoming: true });
    try {
      direct += await receive(machine, bytes, next);
      const { bad, registersBad } = await machine.verify();
      assert.deepEqual({ seed, bad, registersBad }, { seed, bad: [], registersBad: [] });
    } finally {
      await machine.dispose();
    }
  }
  assert.ok(direct > 12 * MIB, `only ${direct} bytes came directly`);
});
