/** The facts most likely to bite (qemu-wire section 0) that the engine's main channel meets, one test each, named for the fact. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { explain, Writer } from '../../src/base/index.ts';
import { createWorkload, type WorkloadMachine } from '../../src/machine/index.ts';
import { OutgoingMigration, type OutgoingResult } from '../../src/migration/index.ts';
import {
  encodeCommand,
  encodeRamEos,
  encodeSectionBegin,
  encodeSectionFooter,
  ReturnPathDecoder,
  type ReturnPathMessage,
  type StreamEvent,
  StreamInput,
  StreamParser,
} from '../../src/wire/index.ts';
import { assertCompleted } from '../support/completed.ts';
import { memoryPair } from '../support/memory-channel.ts';
import { move, testSettings } from '../support/move.ts';
import { ScriptedDestination } from '../support/scripted-destination.ts';
import { play, recordStream, waitingMachine } from '../support/streams.ts';
import { workloadPair } from '../support/workload-pair.ts';

const MIB = 1024 * 1024;
const SHUT_NEVER_STARTED = 0x0fe2_2f00;

interface After {
  after(f: () => Promise<void>): void;
}

async function running(t: After): Promise<WorkloadMachine> {
  const machine = await createWorkload({ ram: 4 * MIB, vcpus: 1, dirtyRate: 1e6 });
  t.after(() => machine.dispose());
  await machine.resume();
  return machine;
}

async function leaves(t: After, script: (peer: ScriptedDestination, migration: OutgoingMigration) => Promise<void>) {
  const machine = await running(t);
  const [ours, theirs] = memoryPair();
  const migration = new OutgoingMigration({
    machine,
    settings: testSettings(),
    connect: async () => ours,
    returnPath: () => true,
  });
  const peer = new ScriptedDestination(theirs);
  const [result] = await Promise.all([migration.run(), script(peer, migration)]);
  return { machine, migration, peer, result };
}

const failure = (result: OutgoingResult) => (result.status === 'completed' ? 'completed' : explain(result.error));

/** Answers both pings and reads everything. */
async function loadAll(peer: ScriptedDestination): Promise<void> {
  for (let i = 0; i < 2; i++) await peer.say({ type: 'PONG', value: await peer.ping() });
  await peer.until((event) => event.kind === 'description');
}

test('fact 4: the description is always sent, even when a machine has none', async (t) => {
  const machine = await running(t);
  const bare = new Proxy(machine, {
    get: (target, name) => {
      if (name === 'saveDevices') return async () => ({ ...(await target.saveDevices()), description: undefined });
      const value = Reflect.get(target, name, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
  const bytes = await recordStream(bare);
  assert.equal(bytes.subarray(-6).toString('hex'), '000600000000');
});

test('fact 6: SHUT 0 completes, and the guest is not run here again', async (t) => {
  const { machine, result } = await leaves(t, async (peer) => {
    await loadAll(peer);
    await peer.say({ type: 'SHUT', value: 0 });
  });
  assertCompleted(result);
  assert.equal(machine.runState, 'postmigrate');
});

test('fact 6: the connection ends before everything is loaded: the guest goes on here', async (t) => {
  const { machine, result } = await leaves(t, async (peer) => {
    await peer.until((event) => event.kind === 'device');
    peer.channel.destroy();
  });
  assert.equal(result.status, 'failed');
  assert.equal(machine.runState, 'running');
});

test('fact 6: SHUT 1 before everything is loaded: the guest goes on here', async (t) => {
  const { machine, result } = await leaves(t, async (peer) => {
    await peer.until((event) => event.kind === 'section-end');
    await peer.say({ type: 'SHUT', value: 1 });
  });
  assert.equal(result.status, 'failed');
  assert.match(failure(result), /SHUT 1/);
  assert.equal(machine.runState, 'running');
});

test('fact 5: EOF is not sent before the destination has loaded every device', async (t) => {
  let eof = false;
  const { peer } = await leaves(t, async (peer) => {
    await peer.say({ type: 'PONG', value: await peer.ping() });
    const commit = await peer.ping();
    const rest = peer
      .until((event) => event.kind === 'eof')
      .then(() => {
        eof = true;
      });
    await peer.idle();
    assert.equal(eof, false, 'EOF came before the PING was answered');
    await peer.say({ type: 'PONG', value: commit });
    await rest;
    await peer.until((event) => event.kind === 'description');
    await peer.say({ type: 'SHUT', value: 0 });
  });
  const kinds = peer.seen.map((event) => event.kind);
  assert.ok(kinds.lastIndexOf('device') < kinds.lastIndexOf('command'));
  assert.ok(kinds.lastIndexOf('command') < kinds.indexOf('eof'));
});

test('fact 5: lost after EOF the guest may run there: it stays stopped here, and the message says how to go on', async (t) => {
  const { machine, result, migration } = await leaves(t, async (peer) => {
    await loadAll(peer);
    peer.channel.destroy();
  });
  assert.equal(result.status, 'failed');
  assert.equal(migration.unconfirmed, true);
  assert.match(failure(result), /may run there.*'cont'/);
  assert.equal(machine.runState, 'postmigrate');
});

test('fact 5: SHUT 1 after EOF does not give the guest back: QEMU may have started it', async (t) => {
  const { machine, migration } = await leaves(t, async (peer) => {
    await loadAll(peer);
    await peer.say({ type: 'SHUT', value: 1 });
  });
  assert.equal(migration.unconfirmed, true);
  assert.equal(machine.runState, 'postmigrate');
});

test('a vmferry destination that never started its guest gives it back even after EOF', async (t) => {
  const { machine, migration, result } = await leaves(t, async (peer) => {
    await loadAll(peer);
    await peer.say({ type: 'SHUT', value: SHUT_NEVER_STARTED });
  });
  assert.equal(result.status, 'failed');
  assert.equal(migration.unconfirmed, false);
  assert.equal(machine.runState, 'running');
});

test('fact 7: SHUT 0 that comes early confirms nothing: the migration fails, the guest goes on here', async (t) => {
  const { machine, result } = await leaves(t, async (peer) => {
    await peer.until((event) => event.kind === 'ram-blocks');
    await peer.say({ type: 'SHUT', value: 0 });
  });
  assert.equal(result.status, 'failed');
  assert.match(failure(result), /before everything was sent/);
  assert.equal(machine.runState, 'running');
});

test('fact 8: pongs may come in any order, and one is enough', async (t) => {
  const { result } = await leaves(t, async (peer) => {
    const first = await peer.ping();
    await peer.say({ type: 'PONG', value: await peer.ping() });
    await peer.say({ type: 'PONG', value: first });
    await peer.until((event) => event.kind === 'description');
    await peer.say({ type: 'SHUT', value: 0 });
  });
  assertCompleted(result);
});

test('fact 22: a page request without postcopy ends the migration, not the guest', async (t) => {
  const { machine, result } = await leaves(t, async (peer) => {
    await peer.until((event) => event.kind === 'ram-blocks');
    await peer.say({ type: 'REQ_PAGES', start: 0, length: 4096 });
  });
  assert.equal(result.status, 'failed');
  assert.match(failure(result), /REQ_PAGES/);
  assert.equal(machine.runState, 'running');
});

test('cancel after the handover is refused', async (t) => {
  const { migration, result } = await leaves(t, async (peer, underWay) => {
    await loadAll(peer);
    assert.throws(() => underWay.cancel(), /too late/);
    await peer.say({ type: 'SHUT', value: 0 });
  });
  assertCompleted(result);
  assert.throws(() => migration.cancel(), /too late/);
});

// Destination

/** Where the stream's elements lie: byte offset of the first event that matches. */
function offsetOf(bytes: Buffer, matches: (event: StreamEvent) => boolean): number {
  const input = new StreamInput('recorded');
  const parser = new StreamParser(input.reader);
  input.add({ bytes, start: 0, end: bytes.length });
  input.finish();
  for (let event = parser.next(); event !== undefined; event = parser.next()) {
    if (event.kind === 'ram-blocks') parser.setRamSink({ page() {}, zero() {}, read() {} });
    if (matches(event)) return event.offset;
  }
  throw new Error('no such element');
}

/** The stream with `insert` put in at `at`. */
const spliced = (bytes: Buffer, at: number, insert: Buffer) =>
  Buffer.concat([bytes.subarray(0, at), insert, bytes.subarray(at)]);

function commands(...names: ('OPEN_RETURN_PATH' | 'PING')[]): Buffer {
  const writer = new Writer();
  for (const name of names) encodeCommand(writer, name === 'PING' ? { name, value: 1 } : { name });
  return Buffer.from(writer.bytes());
}

function messages(said: Buffer): ReturnPathMessage[] {
  const input = new StreamInput('said');
  if (said.length > 0) input.add({ bytes: said, start: 0, end: said.length });
  const decoder = new ReturnPathDecoder(input.reader);
  const all: ReturnPathMessage[] = [];
  for (let message = decoder.next(); message !== undefined; message = decoder.next()) all.push(message);
  return all;
}

async function recorded(t: After): Promise<Buffer> {
  const machine = await running(t);
  await machine.stop('paused');
  return await recordStream(machine);
}

const beforeEnd = (bytes: Buffer) =>
  offsetOf(bytes, (event) => event.kind === 'section-begin' && event.section.kind === 'end');
const afterConfiguration = (bytes: Buffer) => offsetOf(bytes, (event) => event.kind === 'section-begin');

test('the recorded stream is accepted as it is, one way', async (t) => {
  const bytes = await recorded(t);
  const machine = await waitingMachine(t);
  const { result } = await play(machine, bytes);
  assertCompleted(result);
  assert.equal(machine.runState, 'paused');
});

test('fact 3: section ids are arbitrary but never 0: QEMU would take such a PART for a device that it has not loaded yet', async (t) => {
  const ids: number[] = [];
  offsetOf(await recorded(t), (event) => {
    if (event.kind === 'section-begin' || event.kind === 'device') ids.push(event.section.id);
    return event.kind === 'description';
  });
  assert.ok(ids.length > 3 && ids.every((id) => id > 0), ids.join(' '));
});

test('fact 25: tens of thousands of PART sections with nothing in them are taken', async (t) => {
  const bytes = await recorded(t);
  const writer = new Writer();
  const ram = { idstr: 'ram', id: 1, instance: 0, version: 4 };
  for (let i = 0; i < 50_000; i++) {
    encodeSectionBegin(writer, { kind: 'part', ...ram });
    encodeRamEos(writer);
    encodeSectionFooter(writer, ram.id);
  }
  const machine = await waitingMachine(t);
  const { result } = await play(machine, spliced(bytes, beforeEnd(bytes), Buffer.from(writer.bytes())));
  assertCompleted(result);
});

test('fact 16: MULTIFD_FLUSH without multifd is tolerated', async (t) => {
  const bytes = await recorded(t);
  const writer = new Writer();
  encodeSectionBegin(writer, { kind: 'part', idstr: 'ram', id: 1, instance: 0, version: 4 });
  writer.u64(0x200);
  encodeRamEos(writer);
  encodeSectionFooter(writer, 1);
  const machine = await waitingMachine(t);
  const { result } = await play(machine, spliced(bytes, beforeEnd(bytes), Buffer.from(writer.bytes())));
  assertCompleted(result);
});

test('fact 4: a source that closes after EOF instead of describing does not start the guest here, and hears so', async (t) => {
  const whole = await recorded(t);
  const open = commands('OPEN_RETURN_PATH', 'PING');
  const bytes = spliced(whole, afterConfiguration(whole), open);
  const machine = await waitingMachine(t);
  const { result, said } = await play(machine, bytes.subarray(0, offsetOf(bytes, (event) => event.kind === 'eof') + 1));
  assert.equal(result.status, 'failed');
  assert.equal(machine.runState, 'inmigrate');
  assert.deepEqual(messages(said), [
    { type: 'PONG', value: 1 },
    { type: 'SHUT', value: SHUT_NEVER_STARTED },
  ]);
});

test('a stream that ends anywhere before its description starts nothing and leaves nothing', async (t) => {
  const bytes = await recorded(t);
  const eof = offsetOf(bytes, (event) => event.kind === 'eof');
  for (const length of [0, 1, 11, 40, 5000, eof - 1, eof, bytes.length - 1]) {
    const machine = await waitingMachine(t);
    const { result } = await play(machine, bytes.subarray(0, length));
    assert.equal(result.status, 'failed', `cut at ${length} of ${bytes.length}`);
    assert.equal(machine.runState, 'inmigrate');
    assert.equal(machine.dirtyLog, undefined, 'memory was kept');
  }
});

test('PING without a return path is refused', async (t) => {
  const bytes = await recorded(t);
  const machine = await waitingMachine(t);
  const { result } = await play(machine, spliced(bytes, afterConfiguration(bytes), commands('PING')));
  assert.equal(result.status, 'failed');
  assert.match(explain(result.error), /PING/);
});

test('another machine type, another uuid, another RAM size: refused by name, both values told', async (t) => {
  const source = await createWorkload({
    ram: 4 * MIB,
    vcpus: 1,
    machineType: 'workload-7.2',
    uuid: Buffer.alloc(16, 7),
  });
  t.after(() => source.dispose());
  const settings = testSettings((s) => s.setCapabilities([{ capability: 'validate-uuid', state: true }]));
  const bytes = await recordStream(source, settings);
  const cases = [
    { options: { machineType: 'workload-10.0' }, says: /machine type.*workload-10\.0.*workload-7\.2/ },
    { options: { machineType: 'workload-7.2', uuid: Buffer.alloc(16, 8) }, says: /uuid.*0808.*0707/ },
    {
      options: { machineType: 'workload-7.2', ram: 8 * MIB },
      says: /workload\.ram.*8388608.*4194304|4194304.*8388608/,
    },
  ];
  for (const { options, says } of cases) {
    const machine = await createWorkload({ ram: 4 * MIB, vcpus: 1, incoming: true, ...options });
    t.after(() => machine.dispose());
    const { result } = await play(machine, bytes, { settings });
    assert.equal(result.status, 'failed');
    assert.match(explain(result.error), says);
  }
});

test('a capability that changes the stream must be on at both sides or at none', async (t) => {
  const bytes = await recorded(t);
  const settings = testSettings((s) => s.setCapabilities([{ capability: 'x-ignore-shared', state: true }]));
  const machine = await waitingMachine(t);
  const { result } = await play(machine, bytes, { settings });
  assert.match(explain(result.error), /x-ignore-shared.*on expected, off found/);
});

test('live: x-ignore-shared, validate-uuid and pause-before-switchover together', async (t) => {
  const uuid = Buffer.alloc(16, 3);
  const { source, destination } = await workloadPair(t, { ram: 8 * MIB, vcpus: 1, dirtyRate: 1e6, uuid });
  await source.resume();
  const settings = testSettings((s) =>
    s.setCapabilities(
      (['x-ignore-shared', 'validate-uuid', 'pause-before-switchover'] as const).map((capability) => ({
        capability,
        state: true,
      })),
    ),
  );
  const states: string[] = [];
  const moved = move({
    source,
    destination,
    channels: memoryPair(),
    settings,
    outgoing: {
      status: (status) => {
        states.push(status);
        if (status !== 'pre-switchover') return;
        assert.equal(source.runState, 'finish-migrate');
        setImmediate(() => moved.outgoing.continue());
      },
    },
  });
  const { source: result } = await moved.ended;
  assertCompleted(result);
  assert.deepEqual(states, ['setup', 'active', 'pre-switchover', 'device', 'completed']);
  assert.equal(destination.runState, 'running');
});
