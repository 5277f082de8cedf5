/**
 * A peer that stops talking once the guest may run at the destination: at each step both sides come to postcopy-paused within the declared time, say what they
 * have waited for, and can go on from there. The deadline that a case is about is short, all others are far away.
 */
import assert from 'node:assert/strict';
import { connect as netConnect } from 'node:net';
import test, { type TestContext } from 'node:test';
import { explain, Writer } from '../../../src/base/index.ts';
import { createWorkload, type WorkloadMachine } from '../../../src/machine/index.ts';
import { IncomingMigration, OutgoingMigration, type Route, type SourceListener } from '../../../src/migration/index.ts';
import { type CapabilityName, type Settings, type TimedWait, WAITS } from '../../../src/settings/index.ts';
import { type Channel, type Connection, listen } from '../../../src/transport/index.ts';
import { encodeCommand } from '../../../src/wire/index.ts';
import { assertCompleted } from '../../support/completed.ts';
import { memoryPair } from '../../support/memory-channel.ts';
import { LOOPBACK, PostcopyMove, passedTo, States, tcp } from '../../support/postcopy-move.ts';
import { ScriptedPostcopy } from '../../support/scripted-postcopy.ts';
import { assertOverdue, farDeadlines, reasonsShown, settingsFor, shorten } from '../../support/silence.ts';
import { waitingMachine } from '../../support/streams.ts';
import { verified, workloadPair } from '../../support/workload-pair.ts';

const MIB = 1024 * 1024;
const PING_LOADED = 0x42;

async function running(t: TestContext): Promise<WorkloadMachine> {
  const machine = await createWorkload({ ram: 4 * MIB, vcpus: 1, dirtyRate: 1e6 });
  t.after(() => machine.dispose());
  await machine.resume();
  return machine;
}

// A destination that falls silent

/** Reads all that comes and answers nothing. */
async function listenOnly(peer: ScriptedPostcopy): Promise<void> {
  await peer.until(() => false).catch(() => {});
}

/** Its guest runs. */
async function load(peer: ScriptedPostcopy): Promise<void> {
  await peer.untilPing(PING_LOADED);
  await peer.untilCommand('POSTCOPY_RUN');
  await peer.say({ type: 'PONG', value: PING_LOADED });
}

interface SourceCase {
  readonly title: string;
  readonly wait: TimedWait;
  /** What it still does on the first connection; then this one is silent. */
  readonly script: (peer: ScriptedPostcopy) => Promise<void>;
  /** The connection is given up first; what it still does on the second one. */
  readonly recovery?: (peer: ScriptedPostcopy) => Promise<void>;
  /** Of the background, bytes/s. */
  readonly bandwidth?: number;
  /** Too short a wait to be shown for certain: it is looked at once a second. */
  readonly unseen?: true;
}

const SOURCE: readonly SourceCase[] = [
  {
    title: 'takes the package and never says that it is loaded, while pages are still to be sent',
    wait: 'loaded',
    script: listenOnly,
    bandwidth: 1,
  },
  { title: 'takes all pages and never says that the package is loaded', wait: 'loaded', script: listenOnly },
  { title: 'runs the guest and takes nothing any more', wait: 'room', script: load, unseen: true },
  {
    title: 'takes all pages and never says that it has them',
    wait: 'confirmation',
    script: async (peer) => {
      await load(peer);
      await listenOnly(peer);
    },
  },
  { title: 'takes the connection of a recovery and says nothing', wait: 'bitmaps', script: load, recovery: listenOnly },
  {
    title: 'tells what it has of one block and then nothing',
    wait: 'bitmaps',
    script: load,
    recovery: async (peer) => {
      await peer.untilCommand('RECV_BITMAP');
      await peer.say(peer.bitmaps()[0]!);
      await listenOnly(peer);
    },
  },
  {
    title: 'tells what it has and never goes on',
    wait: 'resume',
    script: load,
    recovery: async (peer) => {
      await peer.untilCommand('RECV_BITMAP');
      await peer.say(...peer.bitmaps());
      await listenOnly(peer);
    },
  },
];

for (const { title, wait, script, recovery, bandwidth = 0, unseen } of SOURCE) {
  test(`a destination that ${title}: ${WAITS[wait].deadline}, and it is paused`, async (t) => {
    const machine = await running(t);
    const settings = settingsFor(recovery === undefined ? wait : undefined, 'postcopy-ram');
    settings.setParameters({ 'max-postcopy-bandwidth': recovery === undefined ? bandwidth : 1 });
    const [ours, theirs] = memoryPair();
    const states = new States();
    const migration = new OutgoingMigration({
      machine,
      settings,
      connect: async () => ours,
      returnPath: () => true,
      observer: { status: states.note },
    });
    const reasons = reasonsShown(t, migration);
    const peer = new ScriptedPostcopy(theirs);
    const paused = states.next('postcopy-paused');
    migration.startPostcopy();
    const ended = migration.run();
    if (recovery === undefined) {
      await Promise.all([script(peer), paused]);
    } else {
      const active = states.next('postcopy-active');
      await script(peer);
      await active;
      migration.postcopy.pause();
      await paused;
      shorten(settings, wait);
      const again = states.next('postcopy-paused');
      migration.postcopy.resume(routeOf(peer));
      await states.next('postcopy-recover');
      await Promise.all([recovery(peer), again]);
    }
    assertOverdue(migration.postcopy.pausedBy, wait);
    assert.equal(machine.runState, 'finish-migrate');
    assert.equal(migration.info()['x-waiting-for'], WAITS.recovery.what);
    if (!unseen) assert.ok(reasons.has(WAITS[wait].what), [...reasons].join(', '));

    // Paused is no end: with a destination that talks it goes on.
    settings.setParameters({ 'max-postcopy-bandwidth': 0 });
    farDeadlines(settings);
    migration.postcopy.resume(routeOf(peer));
    await states.next('postcopy-recover');
    await peer.untilCommand('RECV_BITMAP');
    await peer.say(...peer.bitmaps());
    await peer.untilCommand('POSTCOPY_RESUME');
    await peer.say({ type: 'RESUME_ACK', value: 1 });
    await peer.until(({ kind }) => kind === 'eof');
    assert.equal(peer.pages.missing, 0);
    await peer.say({ type: 'SHUT', value: 0 });
    const result = await ended;
    assertCompleted(result);
  });
}

/** Another connection; the script reads on from there. */
function routeOf(peer: ScriptedPostcopy): Route {
  return {
    connect: async () => {
      const [ours, theirs] = memoryPair({ name: 'again' });
      peer.resume(theirs);
      return ours;
    },
  };
}

// A source that falls silent

const SILENT_CHANNEL = { next: () => new Promise<never>(() => {}), close: () => {} };

/** A destination at one end of a channel, to which no other connection comes. */
function destinationAt(channel: Channel, machine: WorkloadMachine, settings: Settings): IncomingMigration {
  const listener: SourceListener = { ...SILENT_CHANNEL, accept: async () => channel };
  return new IncomingMigration({ machine, settings, listener, takesAnyMachine: false });
}

test('a source whose preempt channel never comes: x-arrival-timeout, and the guest is given back', async (t) => {
  const source = await running(t);
  const machine = await waitingMachine(t);
  const capabilities: CapabilityName[] = ['postcopy-ram', 'postcopy-preempt'];
  const [ours, theirs] = memoryPair();
  const incoming = destinationAt(theirs, machine, settingsFor('preempt', ...capabilities));
  const reasons = reasonsShown(t, incoming);
  const outgoing = new OutgoingMigration({
    machine: source,
    settings: settingsFor(undefined, ...capabilities),
    connect: async () => ours,
    dial: async () => ({ channel: () => memoryPair()[0] }) as unknown as Connection,
    returnPath: () => true,
  });
  outgoing.startPostcopy();
  const [arrived, left] = await Promise.all([incoming.run(), outgoing.run()]);
  assertOverdue(arrived.error, 'preempt');
  assert.ok(reasons.has(WAITS.preempt.what), [...reasons].join(', '));
  assert.equal(left.status, 'failed');
  assert.equal(source.runState, 'running');
});

interface Silence {
  readonly move: PostcopyMove;
  readonly settings: Settings;
  readonly machines: Awaited<ReturnType<typeof workloadPair>>;
  /** Bytes that have gone to the destination over a connection. */
  readonly passed: (connection: number) => number;
  readonly done: Promise<unknown>;
}

/** A postcopy under way between two machines, the background as slow as requests are not. */
async function under(t: TestContext, preempt: boolean): Promise<Silence> {
  const machines = await workloadPair(t, { ram: 16 * MIB, vcpus: 1, dirtyRate: 50e6 });
  await machines.source.resume();
  let settings: Settings | undefined;
  const move = await PostcopyMove.between({
    ...machines,
    preempt,
    bandwidth: 4 * MIB,
    change: (one) => {
      settings = one;
      farDeadlines(one);
    },
  });
  const passed = passedTo(move.proxy);
  move.outgoing.startPostcopy();
  const active = move.both('postcopy-active');
  const done = move.completed();
  done.catch(() => {});
  await active;
  return { move, settings: settings!, machines, passed, done };
}

/** The destination is paused because of `wait`; the source is made to give up too, and then both go on to the end. */
async function goOn({ move, settings, machines, done }: Silence, wait: TimedWait, ms?: number): Promise<void> {
  assertOverdue(move.incoming.postcopy.pausedBy, wait, ms);
  assert.equal(machines.destination.runState, 'running');
  assert.equal(move.incoming.info()['x-waiting-for'], WAITS.offer.what);
  if (move.outgoing.status !== 'postcopy-paused') {
    const paused = move.here.next('postcopy-paused');
    move.outgoing.postcopy.pause();
    await paused;
  }
  farDeadlines(settings);
  settings.setParameters({ 'max-postcopy-bandwidth': 0 });
  await move.reconnect();
  await done;
  await verified(machines.destination);
}

test('a source that sends no more: x-silence-timeout, and the destination is paused', async (t) => {
  const silence = await under(t, false);
  const { move, settings } = silence;
  // Long enough for pauses that a busy machine makes.
  const silenceMs = 1_000;
  shorten(settings, 'stream', silenceMs);
  const paused = move.during(move.there.next('postcopy-paused'));
  // A read that began before has no deadline yet.
  await Promise.race([move.sent(64 * 1024), paused]);
  move.proxy.sever('blackhole');
  await paused;
  await goOn(silence, 'stream', silenceMs);
});

test('a preempt channel on which requested pages never come, main has ended: x-lag-timeout, and the destination is paused', async (t) => {
  const silence = await under(t, true);
  const { move, settings } = silence;
  shorten(settings, 'laggards');
  const paused = move.during(move.there.next('postcopy-paused'));
  // Within the next page that is asked for.
  move.proxy.arm({ connection: 1, direction: 'toTarget', after: silence.passed(1) + 1, how: 'blackhole' });
  await move.during(move.proxy.cut);
  settings.setParameters({ 'max-postcopy-bandwidth': 0 });
  await paused;
  await goOn(silence, 'laggards');
});

function recvBitmap(block: string): Buffer {
  const writer = new Writer(64);
  encodeCommand(writer, { name: 'RECV_BITMAP', block });
  return Buffer.from(writer.bytes());
}

test('a source that connects for a recovery and says too little, or the same again: the destination stays paused', async (t) => {
  const silence = await under(t, false);
  const { move, settings } = silence;
  const both = move.both('postcopy-paused');
  move.proxy.sever('reset');
  await both;
  shorten(settings, 'going on');
  const reasons = reasonsShown(t, move.incoming);
  const question = recvBitmap(silence.machines.source.ram[0]!.idstr);
  for (const [what, says, why] of [
    ['a question twice', Buffer.concat([question, question]), /RECV_BITMAP .* for a second time/],
    ['nothing', Buffer.alloc(0)],
    ['half of a command', question.subarray(0, 5)],
    ['a question, and then nothing', question],
  ] as const) {
    const listener = await listen(LOOPBACK);
    const recovering = move.there.next('postcopy-recover');
    const paused = move.during(move.there.next('postcopy-paused'));
    move.incoming.postcopy.recover(listener);
    const { host, port } = tcp(listener.address);
    const peer = netConnect({ host, port }).on('error', () => {});
    peer.resume().write(says);
    await recovering;
    await paused;
    peer.destroy();
    if (why !== undefined) {
      assert.match(explain(move.incoming.postcopy.pausedBy), why);
      continue;
    }
    assertOverdue(move.incoming.postcopy.pausedBy, 'going on');
    assert.ok(reasons.has(WAITS['going on'].what), `${what}: ${[...reasons].join(', ')}`);
  }
  await goOn(silence, 'going on');
});
