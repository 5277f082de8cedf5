/**
 * A peer that falls silent before the stream begins: in the handshake of two vmferry ends, and in the handshake of TLS, on the first connection and on those
 * behind it. The deadline that a case is about is short, all others are far away.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, connect as netConnect, type Socket } from 'node:net';
import test, { after, type TestContext } from 'node:test';
import { explain, Writer } from '../../src/base/index.ts';
import { createWorkload, type WorkloadMachine } from '../../src/machine/index.ts';
import { connector, dialer, IncomingMigration, listenAt, OutgoingMigration } from '../../src/migration/index.ts';
import { type CapabilityName, type Settings, WAITS } from '../../src/settings/index.ts';
import { type Address, type Channel, connect } from '../../src/transport/index.ts';
import { encodeHandshake } from '../../src/wire/index.ts';
import { assertCompleted } from '../support/completed.ts';
import { memoryPair } from '../support/memory-channel.ts';
import { oneChannel } from '../support/move.ts';
import { tcp } from '../support/postcopy-move.ts';
import { assertOverdue, reasonsShown, SHORT_MS, settingsFor, shorten } from '../support/silence.ts';
import { waitingMachine } from '../support/streams.ts';
import { TlsFolders } from '../support/tls-folders.ts';
import { verified } from '../support/workload-pair.ts';

const MIB = 1024 * 1024;
const HANDSHAKE = 'x-vmferry-handshake';

const folders = new TlsFolders();
after(() => folders.close());

async function running(t: TestContext): Promise<WorkloadMachine> {
  const machine = await createWorkload({ ram: 4 * MIB, vcpus: 1, dirtyRate: 1e6 });
  t.after(() => machine.dispose());
  await machine.resume();
  return machine;
}

// The handshake of vmferry

function frame(kind: 'hello' | 'answer'): Buffer {
  const writer = new Writer(64);
  encodeHandshake(writer, { kind, body: Buffer.from('{"machineType":"workload-11.1"}') });
  return Buffer.from(writer.bytes());
}

/** How much of its frame a peer says: nothing, part of the magic, the header alone, all but the last byte. */
const PARTS: readonly [what: string, part: (frame: Buffer) => Buffer][] = [
  ['nothing', (bytes) => bytes.subarray(0, 0)],
  ['two bytes', (bytes) => bytes.subarray(0, 2)],
  ['the header', (bytes) => bytes.subarray(0, 12)],
  ['all but the last byte', (bytes) => bytes.subarray(0, -1)],
];

for (const [what, part] of PARTS) {
  test(`a destination that says ${what} of its handshake: x-handshake-timeout`, async (t) => {
    const machine = await running(t);
    const [ours, theirs] = memoryPair();
    const migration = new OutgoingMigration({
      machine,
      settings: settingsFor('handshake', HANDSHAKE),
      connect: async () => ours,
      returnPath: () => true,
    });
    const reasons = reasonsShown(t, migration);
    await theirs.write(part(frame('answer')));
    const result = await migration.run();
    assertOverdue('error' in result ? result.error : undefined, 'handshake');
    assert.ok(reasons.has(WAITS.handshake.what), [...reasons].join(', '));
    assert.equal(migration.info()['x-waiting-for'], undefined);
    assert.equal(machine.runState, 'running');
  });

  test(`a source that says ${what} of its handshake: x-handshake-timeout`, async (t) => {
    const machine = await waitingMachine(t);
    const [ours, theirs] = memoryPair();
    const listener = oneChannel(async () => theirs);
    const settings = settingsFor('hello', HANDSHAKE);
    const migration = new IncomingMigration({ machine, settings, listener, takesAnyMachine: false });
    const reasons = reasonsShown(t, migration);
    await ours.write(part(frame('hello')));
    const { error } = await migration.run();
    assertOverdue(error, 'hello');
    assert.ok(reasons.has(WAITS.hello.what), [...reasons].join(', '));
    assert.equal(machine.runState, 'inmigrate');
  });
}

test('a source that takes no answer to its handshake: x-handshake-timeout', async (t) => {
  const [ours, theirs] = memoryPair();
  const migration = new IncomingMigration({
    machine: await waitingMachine(t),
    settings: settingsFor('hello', HANDSHAKE),
    listener: oneChannel(async () => deaf(theirs)),
    takesAnyMachine: false,
  });
  await ours.write(frame('hello'));
  assertOverdue((await migration.run()).error, 'hello');
});

/** What is written to it is never taken. */
function deaf(channel: Channel): Channel {
  return new Proxy(channel, {
    get(target, name) {
      if (name === 'write') return () => new Promise(() => {});
      const value = Reflect.get(target, name, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

// The handshake of TLS

/** Takes all connections; those from `silentFrom` on hear nothing, the others come to `target`. */
async function silentServer(t: TestContext, silentFrom: number, target?: Address): Promise<Address> {
  const sockets: Socket[] = [];
  let count = 0;
  const server = createServer((socket) => {
    sockets.push(socket.on('error', () => {}));
    if (count++ >= silentFrom) return void socket.resume();
    const { host, port } = tcp(target!);
    const upstream = netConnect({ host, port }).on('error', () => {});
    sockets.push(upstream);
    socket.pipe(upstream).pipe(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const { port } = server.address() as { port: number };
  return { kind: 'tcp', host: '127.0.0.1', port };
}

const LATER: readonly [which: string, capabilities: readonly CapabilityName[]][] = [
  ['a multifd channel', ['multifd']],
  ['the preempt channel', ['postcopy-ram', 'postcopy-preempt']],
];

test('a destination that takes the connection and shakes no hands (TLS): x-connect-timeout', async (t) => {
  const machine = await running(t);
  const address = await silentServer(t, 0);
  await assertNotShaken(t, machine, address, settingsFor('connection'));
});

for (const [which, capabilities] of LATER) {
  test(`a destination that shakes no hands on ${which} (TLS): x-connect-timeout`, async (t) => {
    const source = await running(t);
    const machine = await waitingMachine(t);
    const settings = settingsFor(undefined, ...capabilities);
    const listener = await listenAt({ kind: 'tcp', host: '127.0.0.1', port: 0 }, { tls: folders.pair('psk').server });
    const incoming = new IncomingMigration({ machine, settings, listener, takesAnyMachine: false });
    const arriving = incoming.run();
    const address = await silentServer(t, 1, listener.address);
    await assertNotShaken(t, source, address, settingsFor('connection', ...capabilities));
    incoming.cancel();
    await arriving;
  });
}

async function assertNotShaken(t: TestContext, machine: WorkloadMachine, address: Address, settings: Settings) {
  const terms = { settings, tls: folders.pair('psk').client };
  const migration = new OutgoingMigration({
    machine,
    settings,
    connect: connector(address, terms),
    dial: dialer(address, terms),
    secured: true,
    returnPath: () => true,
  });
  if (settings.capability('postcopy-ram')) migration.startPostcopy();
  const reasons = reasonsShown(t, migration);
  const result = await migration.run();
  assert.match('error' in result ? explain(result.error) : '', new RegExp(`not shaken hands within ${SHORT_MS} ms`));
  assert.ok(reasons.has(WAITS.connection.what), [...reasons].join(', '));
  assert.equal(migration.info()['x-waiting-for'], undefined);
  assert.equal(machine.runState, 'running');
}

/** Enough for the source's own handshake on a busy machine, ms. */
const STRANGER_MS = 2_000;
/** A ClientHello that is never finished. */
const HALF_HELLO = Buffer.from('16030100c8010000', 'hex');

for (const [what, says] of [
  ['nothing', Buffer.alloc(0)],
  ['half of its first message', HALF_HELLO],
] as const) {
  test(`who connects and says ${what} (TLS) is turned away after x-arrival-timeout, and the source that comes is taken`, async (t) => {
    const source = await running(t);
    const machine = await waitingMachine(t);
    const pair = folders.pair('psk');
    const settings = settingsFor(undefined);
    shorten(settings, 'introduction', STRANGER_MS);
    const listener = await listenAt({ kind: 'tcp', host: '127.0.0.1', port: 0 }, { tls: pair.server, settings });
    const incoming = new IncomingMigration({ machine, settings, listener, takesAnyMachine: false });
    const arriving = incoming.run();
    const stranger = await connect(listener.address);
    await stranger.write(says);
    // Turned away: it reads an end.
    await stranger.read().catch(() => null);
    const refused = new RegExp(`1 turned away, .*not shaken hands within ${STRANGER_MS} ms`);
    assert.match(incoming.info()['x-waiting-for'] ?? '', refused);
    const terms = { tls: pair.client };
    const sent = await new OutgoingMigration({
      machine: source,
      settings: settingsFor(undefined),
      connect: connector(listener.address, terms),
      secured: true,
      returnPath: () => true,
    }).run();
    assertCompleted(sent);
    assert.equal((await arriving).status, 'completed');
    stranger.destroy();
    await verified(machine);
  });
}
