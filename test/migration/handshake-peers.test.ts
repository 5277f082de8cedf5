/** Ends that break off, lie, or belong to another time: the handshake ends within its deadline, by name, and the guest is not touched. */
import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { explain, Writer } from '../../src/base/index.ts';
import { createWorkload, type WorkloadMachine } from '../../src/machine/index.ts';
import { IncomingMigration, OutgoingMigration } from '../../src/migration/index.ts';
import type { Settings } from '../../src/settings/index.ts';
import { type Channel, connect, listen } from '../../src/transport/index.ts';
import { encodeHandshake } from '../../src/wire/index.ts';
import { memoryPair } from '../support/memory-channel.ts';
import { oneChannel, testSettings } from '../support/move.ts';

const MIB = 1024 * 1024;
const SHORT_MS = 200;

function settings(change: (settings: Settings) => void = () => {}): Settings {
  return testSettings((one) => {
    one.setCapabilities([{ capability: 'x-vmferry-handshake', state: true }]);
    one.setParameters({ 'x-handshake-timeout': SHORT_MS });
    change(one);
  });
}

async function machine(t: TestContext, incoming: boolean): Promise<WorkloadMachine> {
  const made = await createWorkload({ ram: 4 * MIB, vcpus: 1, dirtyRate: 1e6, incoming });
  t.after(() => made.dispose());
  if (!incoming) await made.resume();
  return made;
}

function frame(kind: 'hello' | 'answer', body: unknown): Buffer {
  const writer = new Writer(64);
  encodeHandshake(writer, {
    kind,
    body: typeof body === 'string' ? Buffer.from(body) : Buffer.from(JSON.stringify(body)),
  });
  return Buffer.from(writer.bytes());
}

/** Byte by byte, for ever. */
async function drip(channel: Channel, bytes: Buffer): Promise<void> {
  for (let at = 0; ; at = (at + 1) % bytes.length) {
    await channel.write(Uint8Array.of(bytes[at % 12]!));
    await new Promise((resolve) => setTimeout(resolve, SHORT_MS / 20));
  }
}

type Script = (channel: Channel) => Promise<unknown>;

const newer = (bytes: Buffer) => {
  bytes.writeUInt16BE(9, 4);
  return bytes;
};

/** What the other end does, whichever it is: `kind` is what is expected of it. */
const STRANGE: readonly [name: string, script: (kind: 'hello' | 'answer') => Script, says: RegExp][] = [
  ['says nothing', () => async () => {}, /waited 200 ms for .*handshake/],
  ['closes', () => (channel) => channel.end(), /closed the connection instead of its (hello|answer)/],
  ['says half of it', (kind) => (channel) => channel.write(frame(kind, { a: 1 }).subarray(0, 14)), /waited 200 ms/],
  [
    'says half of it, and closes',
    (kind) => async (channel) => {
      await channel.write(frame(kind, { a: 1 }).subarray(0, 9));
      await channel.end();
    },
    /closed the connection instead of its/,
  ],
  [
    'says it byte by byte, and never all',
    (kind) => (channel) => drip(channel, frame(kind, 'x'.repeat(900_000))),
    /waited 200 ms/,
  ],
  [
    'says something else',
    () => (channel) => channel.write(Buffer.from('GET / HTTP/1.1\r\n\r\n')),
    /sends no handshake/,
  ],
  [
    'says the other kind',
    (kind) => (channel) => channel.write(frame(kind === 'hello' ? 'answer' : 'hello', {})),
    /kind: expected (hello|answer)/,
  ],
  [
    'says more than it may',
    (kind) => (channel) => channel.write(Buffer.concat([frame(kind, {}), Buffer.alloc(3)])),
    /3 bytes behind/,
  ],
  ['says what is no JSON', (kind) => (channel) => channel.write(frame(kind, '{')), /JSON/],
  ['says what cannot be', (kind) => (channel) => channel.write(frame(kind, { ram: 7 })), /ram: value: expected a list/],
  [
    'is of a time that this end cannot understand',
    (kind) => (channel) => channel.write(newer(frame(kind, {}))),
    /version: expected 1, found 9/,
  ],
];

for (const [name, script, says] of STRANGE) {
  test(`a destination that ${name}`, async (t) => {
    const source = await machine(t, false);
    const [ours, theirs] = memoryPair();
    const connect = async () => ours;
    const migration = new OutgoingMigration({ machine: source, settings: settings(), connect, returnPath: () => true });
    const played = script('answer')(theirs).catch(() => {});
    const result = await migration.run();
    theirs.destroy();
    await played;
    assert.equal(result.status, 'failed');
    assert.match('error' in result ? explain(result.error) : '', says);
    assert.equal(source.runState, 'running');
  });

  test(`a source that ${name}`, async (t) => {
    const [ours, theirs] = memoryPair();
    const migration = new IncomingMigration({
      machine: await machine(t, true),
      settings: settings(),
      listener: oneChannel(async () => ours),
      takesAnyMachine: false,
    });
    const played = script('hello')(theirs).catch(() => {});
    const result = await migration.run();
    theirs.destroy();
    await played;
    assert.equal(result.status, 'failed');
    assert.match(explain(result.error), says);
  });
}

const FOUR = (one: Settings) => {
  one.setCapabilities([{ capability: 'multifd', state: true }]);
  one.setParameters({ 'multifd-channels': 4 });
};

/** What a destination answers to a source with four channels; all else is as the source wants it. */
const ANSWERS: readonly [name: string, answer: object, says: RegExp][] = [
  [
    'settles at what the source cannot do',
    { handshake: 2, settled: { 'multifd-channels': 200, 'multifd-compression': 'qpl', 'max-bandwidth': 1 } },
    /multifd-channels: the destination says 200.*multifd-compression: .*qpl.*max-bandwidth/,
  ],
  [
    'settles at what differs still',
    { handshake: 2, capabilities: { multifd: false, 'x-ignore-shared': true }, settled: { multifd: true } },
    /x-ignore-shared is on at the destination only/,
  ],
  [
    'settles nothing though it differs',
    { handshake: 2, capabilities: { multifd: false } },
    /multifd is on at the source only/,
  ],
  [
    'is of a version that settles nothing, and says it does',
    { handshake: 1, capabilities: { multifd: false }, settled: { multifd: false } },
    /multifd is on at the source only/,
  ],
  ['tells nothing of its version', { capabilities: { multifd: false } }, /multifd is on at the source only/],
];

for (const [name, answer, says] of ANSWERS) {
  test(`a destination that ${name} is refused`, async (t) => {
    const source = await machine(t, false);
    const [ours, theirs] = memoryPair();
    const migration = new OutgoingMigration({
      machine: source,
      settings: settings(FOUR),
      connect: async () => ours,
      dial: () => Promise.reject(new Error('a channel was asked for')),
      returnPath: () => true,
    });
    const played = theirs.write(frame('answer', answer));
    const result = await migration.run();
    await played;
    theirs.destroy();
    assert.match('error' in result ? explain(result.error) : '', says);
    assert.equal(source.runState, 'running');
  });
}

for (const [multifd, says] of [
  [false, /multifd is on at the destination only/],
  // Nothing differs: it goes on, to wait for channels that do not come.
  [true, /waited 300 ms for the source to connect: multifd 0, 1, 2, 3/],
] as const) {
  test(`a source of a version that settles nothing, multifd ${multifd ? 'on' : 'off'}: it is told nothing new`, async (t) => {
    const listener = await listen({ kind: 'tcp', host: '127.0.0.1', port: 0 });
    const waiting = settings((one) => {
      FOUR(one);
      one.setParameters({ 'x-arrival-timeout': 300 });
    });
    const destination = await machine(t, true);
    const incoming = new IncomingMigration({
      machine: destination,
      settings: waiting,
      listener,
      takesAnyMachine: false,
    });
    const running = incoming.run();
    const channel = await connect(listener.address);
    t.after(() => channel.destroy());
    const parameters = { 'multifd-channels': 4, 'multifd-compression': 'none' };
    const capabilities = { multifd, 'x-vmferry-handshake': true };
    await channel.write(frame('hello', { runState: 'running', capabilities, parameters }));
    const answer = await channel.read();
    assert.ok(answer !== null);
    assert.deepEqual(JSON.parse(answer.bytes.toString('utf8', answer.start + 12, answer.end)).settled, {});
    assert.match(explain((await running).error), says);
  });
}
