/** The downtime limit as a promise: devices are asked to stop with a deadline, and a guest whose devices are late runs on as if nothing had been. */
import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { explain } from '../../src/base/index.ts';
import type { Settings } from '../../src/settings/index.ts';
import { type VfOptions, vfOptions } from '../../src/vfio/index.ts';
import { assertCompleted } from '../support/completed.ts';
import { memoryPair } from '../support/memory-channel.ts';
import { type Move, move, testSettings } from '../support/move.ts';
import { BUSY_VF, busyVfs, type MachineWithVfs, verifyAll, vfPair } from '../support/vf-machines.ts';

/** Enough for a device of a few megabytes on a busy machine. */
const LIMIT_MS = 800;

interface Play extends Move {
  readonly source: MachineWithVfs;
  readonly destination: MachineWithVfs;
  /** The guest was stopped for the switchover, or ran again after that. */
  readonly events: readonly string[];
}

async function begin(t: TestContext, vfs: readonly VfOptions[], settings: Settings): Promise<Play> {
  const workload = { ram: 4 * 1024 * 1024 };
  const sound = vfs.map((one) => ({ ...one, faults: [] }));
  const { source, destination } = await vfPair(t, { vfs, workload }, { vfs: sound, workload });
  const events: string[] = [];
  const moved = move({
    source: source.machine,
    destination: destination.machine,
    channels: memoryPair(),
    settings,
    outgoing: { stopped: () => events.push('stopped'), resumed: () => events.push('resumed') },
  });
  return { ...moved, source, destination, events };
}

const limit = (ms: number) => testSettings((settings) => settings.setParameters({ 'downtime-limit': ms }));
const late = (faults: readonly string[], given: Parameters<typeof vfOptions>[0] = {}) =>
  vfOptions({ ...BUSY_VF, seed: 100, 'peer-rate': 0, ...given, faults });

/** Arcs that a device takes when its machine stops, the last of them as often as not; something holds it up there once. */
const LATE: readonly [name: string, given: Parameters<typeof vfOptions>[0], arc: string, fault: string][] = [
  ['going quiet', {}, 'PRE_COPY>PRE_COPY_P2P', 'hang'],
  ['stopping', {}, 'PRE_COPY_P2P>STOP_COPY', 'slow,ms=100000'],
  ['without P2P', { p2p: false }, 'PRE_COPY>STOP_COPY', 'hang'],
  // The first time is when the guest starts.
  ['without PRE_COPY, going quiet', { precopy: false }, 'RUNNING>RUNNING_P2P', 'slow,ms=100000,after=1'],
  ['without PRE_COPY, stopping', { precopy: false }, 'RUNNING_P2P>STOP', 'hang'],
  ['with neither', { precopy: false, p2p: false }, 'RUNNING>STOP', 'slow,ms=100000'],
];

for (const [name, given, arc, fault] of LATE) {
  test(`a device that is late (${fault}), ${name}: the guest runs on, and the next try succeeds`, async (t) => {
    const play = await begin(t, [late([`arc ${arc}:${fault}`], given)], limit(LIMIT_MS));
    const { source: result } = await play.ended;
    assertCompleted(result);
    assert.ok(result.info['x-missed-stops']! >= 1);
    assert.deepEqual(play.events, ['stopped'], 'managers hear of the stop that was one');
    const [report] = await play.source.machine.reports();
    assert.equal(report?.resets, 0);
    const taken = report.arcs.map(({ from, to }) => `${from}>${to}`);
    assert.ok(taken.includes(arc), `${arc} is not among ${taken.join(', ')}`);
    assert.ok(report.arcs.every(({ ms }) => ms >= 0));
    assert.equal(report.spans.filter((span) => span.kind === 'stop').length, 1);
    await verifyAll(play.destination);
  });
}

test('others that had stopped run on too, as long as nothing of them has been sent', async (t) => {
  const vfs = [late(['arc RUNNING_P2P>STOP:hang'], { precopy: false }), late([], { precopy: false, seed: 101 })];
  const play = await begin(t, vfs, limit(LIMIT_MS));
  const { source: result } = await play.ended;
  assertCompleted(result);
  assert.ok(result.info['x-missed-stops']! >= 1);
  await verifyAll(play.destination);
});

/** The first device is late with its last step as often as it says here, and by then the second has no way back. */
function oneStuck(times: number) {
  const faults = Array.from({ length: times }, (_, after) => `arc PRE_COPY_P2P>STOP_COPY:hang,after=${after}`);
  return [late(faults), late([], { seed: 101 })];
}

test('one that has begun to save and has stopped has no way back: who is late gets as much time once more', async (t) => {
  const play = await begin(t, oneStuck(1), limit(LIMIT_MS));
  const { source: result } = await play.ended;
  assertCompleted(result);
  assert.deepEqual(play.events, ['stopped']);
  await verifyAll(play.destination);
});

test('and if that is not enough the migration fails, and the guest goes on with its devices whole', async (t) => {
  const play = await begin(t, oneStuck(2), limit(LIMIT_MS));
  const { source: result } = await play.ended;
  assert(result.status === 'failed');
  assert.match(explain(result.error), /vf1: .*had stopped when another device was late.*vf0/s);
  assert.equal(play.source.machine.runState, 'running');
  for (const { state, resets } of await play.source.machine.reports())
    assert.deepEqual([state, resets], ['RUNNING', 0]);
  await verifyAll(play.source);
});

test('a device that takes no deadlines is not asked for any: the stop takes what it takes', async (t) => {
  const vfs = [late(['arc PRE_COPY_P2P>STOP_COPY:slow,ms=1500'], { deadlines: false })];
  const play = await begin(t, vfs, limit(LIMIT_MS));
  const { source: result } = await play.ended;
  assertCompleted(result);
  await verifyAll(play.destination);
});

test('what devices need to stop counts in the downtime to expect: no try before the limit is raised', async (t) => {
  const settings = limit(400);
  const play = await begin(t, busyVfs(2, { 'arc-ms': 300 }), settings);
  const deadline = Date.now() + 60_000;
  // Both steps; and starting them is assumed to take as long.
  const dear = /^devices that need 12\d\d ms to stop and to be loaded: more than downtime-limit$/;
  while (!dear.test(play.outgoing.info()['x-waiting-for'] ?? '')) {
    assert.ok(Date.now() < deadline, JSON.stringify(play.outgoing.info()));
    assert.equal(play.outgoing.status === 'setup' || play.outgoing.status === 'active', true);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.ok(play.outgoing.info()['expected-downtime']! >= 4 * 300);
  assert.deepEqual(play.events, []);
  settings.setParameters({ 'downtime-limit': 100_000 });
  const { source: result } = await play.ended;
  assertCompleted(result);
  assert.equal(result.info['x-missed-stops'], undefined);
  await verifyAll(play.destination);
});

test('what the destination needs to prepare its devices counts: the guest is not stopped while they still do', async (t) => {
  const ALLOCATION_MS = 2_000;
  const settings = limit(LIMIT_MS);
  const play = await begin(t, busyVfs(1, { 'allocation-ms': ALLOCATION_MS, 'state-rate': 0 }), settings);
  const { source: result } = await play.ended;
  assertCompleted(result);
  const [here] = await play.source.machine.reports();
  const [there] = await play.destination.machine.reports();
  const stop = here?.spans.find(({ kind }) => kind === 'stop');
  const first = there?.spans.find(({ kind }) => kind === 'preload');
  assert(stop !== undefined && first !== undefined);
  const begunMs = stop.startMs - first.startMs;
  assert.ok(begunMs > ALLOCATION_MS - LIMIT_MS, `stopped ${begunMs} ms after the preparation had begun`);
  await verifyAll(play.destination);
});

test('a device that is read only when it stands, and a guest that changes nothing: there is little to measure by, and it moves', async (t) => {
  const options = vfOptions({
    ...BUSY_VF,
    'state-size': 32 * 1024 * 1024,
    precopy: false,
    'dma-rate': 0,
    'peer-rate': 0,
  });
  const idle = { vfs: [options], workload: { ram: 4 * 1024 * 1024, dirtyRate: 0 } };
  const { source, destination } = await vfPair(t, idle);
  const settings = limit(1_000);
  const { ended } = move({
    source: source.machine,
    destination: destination.machine,
    channels: memoryPair(),
    settings,
  });
  const { source: result } = await ended;
  assertCompleted(result);
  await verifyAll(destination);
});
