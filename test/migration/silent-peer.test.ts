/**
 * A peer that stops talking, at each step of each phase: the migration ends within the declared time, and says what it has waited for. The deadline that
 * a case is about is short, all others are far away: what ends it is the right one.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import test, { type TestContext } from 'node:test';
import { explain, FerryError } from '../../src/base/index.ts';
import { createWorkload, type WorkloadMachine } from '../../src/machine/index.ts';
import { connector, dialer, IncomingMigration, OutgoingMigration } from '../../src/migration/index.ts';
import { type CapabilityName, type TimedWait, WAITS } from '../../src/settings/index.ts';
import { type Address, connect, listen } from '../../src/transport/index.ts';
import { assertCompleted } from '../support/completed.ts';
import { memoryPair } from '../support/memory-channel.ts';
import { oneChannel } from '../support/move.ts';
import { ScriptedDestination } from '../support/scripted-destination.ts';
import { assertOverdue, reasonsShown, settingsFor, shorten } from '../support/silence.ts';
import { recordStream, waitingMachine } from '../support/streams.ts';

const MIB = 1024 * 1024;

async function running(t: TestContext): Promise<WorkloadMachine> {
  const machine = await createWorkload({ ram: 4 * MIB, vcpus: 1, dirtyRate: 1e6 });
  t.after(() => machine.dispose());
  await machine.resume();
  return machine;
}

/** Reads all that comes and answers nothing. */
async function listenOnly(peer: ScriptedDestination): Promise<void> {
  while ((await peer.next()) !== undefined);
}

async function answer(peer: ScriptedDestination, pings: number): Promise<void> {
  for (let i = 0; i < pings; i++) await peer.say({ type: 'PONG', value: await peer.ping() });
}

interface SourceCase {
  readonly title: string;
  readonly wait: TimedWait;
  readonly capabilities?: readonly CapabilityName[];
  readonly script: (peer: ScriptedDestination) => Promise<void>;
  /** Where the guest is then. */
  readonly guest: 'running' | 'postmigrate';
  /** query-migrate must have told it meanwhile: it is a wait that nothing else goes on beside. */
  readonly shown?: true;
}

const SOURCE: readonly SourceCase[] = [
  { title: 'takes nothing', wait: 'room', script: async () => {}, guest: 'running' },
  { title: 'reads all, and never answers', wait: 'answer', script: listenOnly, guest: 'running' },
  {
    title: 'answers the first PING, then takes nothing',
    wait: 'room',
    script: (peer) => answer(peer, 1),
    guest: 'running',
  },
  {
    title: 'never says that all is loaded',
    wait: 'loaded',
    script: async (peer) => {
      await answer(peer, 1);
      await listenOnly(peer);
    },
    guest: 'running',
    shown: true,
  },
  {
    title: 'never says that it has the guest',
    wait: 'confirmation',
    script: async (peer) => {
      await answer(peer, 2);
      await listenOnly(peer);
    },
    guest: 'postmigrate',
    shown: true,
  },
  {
    title: 'does not answer before the preempt channel',
    wait: 'answer',
    capabilities: ['postcopy-ram', 'postcopy-preempt'],
    script: listenOnly,
    guest: 'running',
  },
];

for (const { title, wait, capabilities = [], script, guest, shown } of SOURCE) {
  test(`a destination that ${title}: ${WAITS[wait].deadline}`, async (t) => {
    const machine = await running(t);
    const [ours, theirs] = memoryPair();
    const migration = new OutgoingMigration({
      machine,
      settings: settingsFor(wait, ...capabilities),
      connect: async () => ours,
      dial: () => new Promise(() => {}),
      returnPath: () => true,
    });
    if (capabilities.includes('postcopy-ram')) migration.startPostcopy();
    const reasons = reasonsShown(t, migration);
    const played = script(new ScriptedDestination(theirs)).catch(() => {});
    const result = await migration.run();
    await played;
    assert.equal(result.status, 'failed');
    assertOverdue('error' in result ? result.error : undefined, wait);
    if (shown) assert.ok(reasons.has(WAITS[wait].what), [...reasons].join(', '));
    assert.equal(machine.runState, guest);
    assert.equal(migration.info()['x-waiting-for'], undefined);
  });
}

test('a destination that takes all connections of multifd and says nothing: x-setup-timeout, and it is told what to compare', async (t) => {
  const sockets: Socket[] = [];
  const server = createServer((socket) => sockets.push(socket.resume().on('error', () => {})));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const bound = server.address();
  assert.ok(bound !== null && typeof bound === 'object');
  const address: Address = { kind: 'tcp', host: '127.0.0.1', port: bound.port };
  const machine = await running(t);
  const settings = settingsFor('answer', 'multifd');
  const migration = new OutgoingMigration({
    machine,
    settings,
    connect: connector(address, { settings }),
    dial: dialer(address, { settings }),
    returnPath: () => true,
  });
  const result = await migration.run();
  assert.match('error' in result ? explain(result.error) : '', /waited 150 ms for .*multifd-channels/);
  assert.equal(machine.runState, 'running');
});

/** Where a source falls silent, as a share of its stream; and with a return path. */
const CUTS: readonly [where: string, bytes: (length: number) => number][] = [
  ['before its first byte', () => 0],
  ['in the header', () => 5],
  ['in the configuration', () => 12],
  ['in the block list', () => 60],
  ['in the memory', (length) => length >> 1],
  ['in the description', (length) => length - 1],
];

for (const [where, bytes] of CUTS) {
  test(`a source that falls silent ${where}: x-silence-timeout, and nothing is started`, async (t) => {
    const source = await running(t);
    await source.stop('paused');
    const stream = await recordStream(source);
    const machine = await waitingMachine(t);
    const [ours, theirs] = memoryPair();
    const migration = new IncomingMigration({
      machine,
      settings: settingsFor('stream'),
      listener: oneChannel(async () => theirs),
      takesAnyMachine: false,
    });
    void ours.write(stream.subarray(0, bytes(stream.length))).catch(() => {});
    const result = await migration.run();
    ours.destroy();
    assertOverdue(result.error, 'stream');
    assert.equal(machine.runState, 'inmigrate');
  });
}

/** Who comes must have said what it is by then, also on a machine that has much else to do. */
const ARRIVAL_MS = 2_000;

const HELLO: Readonly<Record<string, readonly string[]>> = {
  'main only': ['5145564d00000003'],
  'main, and a channel that does not say all of its first packet': ['5145564d00000003', '1122334400000001'],
  'main, and a connection that says nothing': ['5145564d00000003', ''],
};

for (const [who, connections] of Object.entries(HELLO)) {
  test(`a source of multifd of which there is ${who}: x-arrival-timeout`, async (t) => {
    const machine = await waitingMachine(t);
    const listener = await listen({ kind: 'tcp', host: '127.0.0.1', port: 0 });
    const settings = settingsFor(undefined, 'multifd');
    shorten(settings, 'channels', ARRIVAL_MS);
    const migration = new IncomingMigration({ machine, settings, listener, takesAnyMachine: false });
    const ended = migration.run();
    const peers = await Promise.all(connections.map(() => connect(listener.address)));
    t.after(() => {
      for (const peer of peers) peer.destroy();
    });
    await Promise.all(peers.map((peer, i) => peer.write(Buffer.from(connections[i]!, 'hex'))));
    const { status, error } = await ended;
    assert.equal(status, 'failed');
    assert.match(
      explain(error),
      new RegExp(`waited ${ARRIVAL_MS} ms for the source to connect: multifd .*multifd-channels`),
    );
  });
}

test('a source that loses a channel within its first bytes is not waited for: all ends at once', async (t) => {
  const machine = await waitingMachine(t);
  const listener = await listen({ kind: 'tcp', host: '127.0.0.1', port: 0 });
  const migration = new IncomingMigration({
    machine,
    settings: settingsFor('farewell', 'multifd'),
    listener,
    takesAnyMachine: false,
  });
  const ended = migration.run();
  const [main, channel] = [await connect(listener.address), await connect(listener.address)];
  t.after(() => main.destroy());
  await main.write(Buffer.from('5145564d00000003', 'hex'));
  await channel.write(Buffer.from('1122', 'hex'));
  await channel.end();
  const { error } = await ended;
  assert.equal(error instanceof FerryError && error.code, 'MIGRATION_PEER_GONE', explain(error));
  assert.match(explain(error), /lost after its first 2 bytes/);
  channel.destroy();
});

test('a source that neither confirms nor closes after the last word: x-closing-timeout, the guest runs here', async (t) => {
  const source = await running(t);
  const machine = await waitingMachine(t);
  const [ours, theirs] = memoryPair();
  const settings = settingsFor('farewell');
  const incoming = new IncomingMigration({
    machine,
    settings,
    listener: oneChannel(async () => theirs),
    takesAnyMachine: false,
  });
  // The real source, but it never hears SHUT: its return path is deaf from the second PONG on.
  const outgoing = new OutgoingMigration({
    machine: source,
    settings: settingsFor(undefined),
    connect: async () => deafAfter(ours, 2),
    returnPath: () => true,
  });
  const sending = outgoing.run();
  const result = await incoming.run();
  assertCompleted(result);
  assert.equal(result.confirmed, false);
  assert.equal(machine.runState, 'running');
  ours.destroy();
  assert.equal((await sending).status, 'failed');
  assert.equal(source.runState, 'postmigrate');
});

/** The channel, but after so many chunks nothing more is read from it. */
function deafAfter(channel: ReturnType<typeof memoryPair>[0], chunks: number): ReturnType<typeof memoryPair>[0] {
  let left = chunks;
  const counted = <C>(chunk: C): C => {
    if (chunk !== undefined) left--;
    return chunk;
  };
  const silence = new Promise<never>((_, reject) => void channel.closed.then(() => reject(new Error('closed'))));
  silence.catch(() => {});
  return new Proxy(channel, {
    get(target, name) {
      if (name === 'tryRead') return () => (left > 0 ? counted(target.tryRead()) : undefined);
      if (name === 'read') return () => (left > 0 ? target.read().then(counted) : silence);
      const value = Reflect.get(target, name, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}
