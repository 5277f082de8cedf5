/** A guest runs on at the destination while its memory is still at the source; every page and register is verified afterwards. */
import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { explain } from '../../../src/base/index.ts';
import type { DestinationMachine, WorkloadMachine, WorkloadOptions } from '../../../src/machine/index.ts';
import { connect, listen } from '../../../src/transport/index.ts';
import { vfOptions } from '../../../src/vfio/index.ts';
import { LOOPBACK, PostcopyMove, type PostcopyMoveOptions } from '../../support/postcopy-move.ts';
import { BUSY_VF, vfPair } from '../../support/vf-machines.ts';
import { verified, type WorkloadPair, workloadPair } from '../../support/workload-pair.ts';

const MIB = 1024 * 1024;
/** As it goes over the return path: type, length, value. */
const SHUT_0 = Buffer.from('0001000400000000', 'hex');
const NO_LISTENER = { accept: () => assert.fail(), next: () => assert.fail(), close: () => {} };

function machines(t: TestContext, options: Partial<WorkloadOptions> = {}): Promise<WorkloadPair> {
  return workloadPair(t, { ram: 16 * MIB, vcpus: 3, dirtyRate: 100e6, ...options });
}

const CASES: readonly {
  readonly name: string;
  readonly machine?: Partial<WorkloadOptions>;
  readonly preempt: boolean;
  readonly preemptChannels?: NonNullable<PostcopyMoveOptions['preemptChannels']>;
}[] = [
  { name: 'pages of 4 KiB', preempt: false },
  { name: 'pages of 4 KiB, preempt', preempt: true },
  {
    name: 'pages of 4 KiB, preempt, a machine type that makes its channel early',
    preempt: true,
    machine: { machineType: 'workload-7.2' },
  },
  { name: 'pages of 2 MiB', preempt: false, machine: { hostPage: 2 * MIB } },
  { name: 'pages of 2 MiB, preempt', preempt: true, machine: { hostPage: 2 * MIB } },
  {
    name: 'a page of 1 GiB and small ones, two preempt channels',
    preempt: true,
    preemptChannels: {},
    machine: { hostPage: 1024 * MIB, ram: 1024 * MIB, fill: 0.02 },
  },
];

for (const { name, machine, ...options } of CASES) {
  test(`at once: ${name}`, async (t) => {
    const { source, destination } = await machines(t, machine);
    await source.resume();
    const moved = await PostcopyMove.between({ source, destination, ...options });
    moved.outgoing.startPostcopy();
    await moved.completed();
    assert.equal(source.runState, 'postmigrate');
    assert.equal(destination.runState, 'running');
    assert.deepEqual(moved.there.seen, ['setup', 'active', 'postcopy-device', 'postcopy-active', 'completed']);
    assert.ok(moved.outgoing.info().ram!['postcopy-requests'] > 0, 'pages were asked for');
    const figures = moved.incoming.info();
    assert.ok(figures['postcopy-latency']! > 0);
    assert.equal(figures['postcopy-vcpu-blocktime']!.length, 3);
    await verified(destination);
  });
}

test('after a while of precopy only what is dirty comes late', async (t) => {
  const { source, destination } = await machines(t);
  await source.resume();
  const moved = await PostcopyMove.between({
    source,
    destination,
    change: (settings) => settings.setParameters({ 'max-bandwidth': 30e6, 'downtime-limit': 0 }),
  });
  const run = moved.completed();
  await moved.sent(32 * MIB);
  moved.outgoing.startPostcopy();
  await run;
  assert.ok(moved.there.seen.includes('postcopy-active'));
  const { ram } = moved.outgoing.info();
  assert.ok(ram!['postcopy-bytes'] > 0);
  assert.ok(
    ram!['postcopy-bytes'] < ram!['precopy-bytes'],
    `${ram!['postcopy-bytes']} bytes of ${ram!.transferred} came late`,
  );
  await verified(destination);
});

test('xbzrle until the switchover: differences are taken before, and whole pages after', async (t) => {
  const { source, destination } = await machines(t);
  await source.resume();
  const moved = await PostcopyMove.between({
    source,
    destination,
    change: (settings) => {
      settings.setCapabilities([{ capability: 'xbzrle', state: true }]);
      // A cache for a quarter of the pages: with differences alone it might converge before postcopy is asked for.
      settings.setParameters({ 'max-bandwidth': 30e6, 'downtime-limit': 0, 'xbzrle-cache-size': 4 * MIB });
    },
  });
  const run = moved.completed();
  while ((moved.outgoing.info()['xbzrle-cache']?.pages ?? 0) === 0) await moved.sent(4096);
  moved.outgoing.startPostcopy();
  await run;
  assert.ok(moved.there.seen.includes('postcopy-active'));
  assert.ok(moved.outgoing.info().ram!['postcopy-bytes'] > 0);
  await verified(destination);
});

test('multifd until the switchover, one channel from then on; a connection that breaks takes the idle channels along', async (t) => {
  const { source, destination } = await machines(t);
  await source.resume();
  const moved = await PostcopyMove.between({
    source,
    destination,
    preempt: true,
    bandwidth: 10 * MIB,
    change: (settings) => {
      settings.setCapabilities([{ capability: 'multifd', state: true }]);
      settings.setParameters({ 'max-bandwidth': 30e6, 'downtime-limit': 0 });
    },
  });
  const run = moved.completed();
  await moved.sent(32 * MIB);
  const active = moved.both('postcopy-active');
  moved.outgoing.startPostcopy();
  await active;
  const paused = moved.both('postcopy-paused');
  moved.proxy.sever('reset');
  await paused;
  await moved.reconnect();
  await run;
  assert.ok(moved.outgoing.info().ram!['multifd-bytes'] > 0);
  assert.deepEqual(moved.incoming.threads, []);
  await verified(destination);
});

for (const preempt of [false, true]) {
  test(`connections that break, one after another${preempt ? ', preempt' : ''}`, async (t) => {
    const { source, destination } = await machines(t, preempt ? { hostPage: 2 * MIB, ram: 32 * MIB } : {});
    await source.resume();
    const moved = await PostcopyMove.between({ source, destination, preempt, bandwidth: 10 * MIB });
    moved.outgoing.startPostcopy();
    const active = moved.here.next('postcopy-active');
    const run = moved.completed();
    await active;
    for (const how of ['reset', 'end', 'reset'] as const) {
      await moved.sent(256 * 1024);
      await moved.breakAndRecover(how);
    }
    await run;
    await verified(destination);
  });
}

for (const side of ['source', 'destination'] as const) {
  test(`migrate-pause at the ${side}`, async (t) => {
    const { source, destination } = await machines(t);
    await source.resume();
    const moved = await PostcopyMove.between({ source, destination, bandwidth: 10 * MIB });
    moved.outgoing.startPostcopy();
    const active = moved.here.next('postcopy-active');
    const run = moved.completed();
    await active;
    await moved.sent(256 * 1024);
    const paused = moved.both('postcopy-paused');
    const { postcopy } = side === 'source' ? moved.outgoing : moved.incoming;
    postcopy.pause();
    await paused;
    assert.throws(() => postcopy.pause(), /only a postcopy in state/);
    await moved.reconnect();
    await run;
    await verified(destination);
  });
}

test('a recovery that fails is followed by one that does not', async (t) => {
  const { source, destination } = await machines(t);
  await source.resume();
  const moved = await PostcopyMove.between({ source, destination, bandwidth: 10 * MIB });
  moved.outgoing.startPostcopy();
  const active = moved.here.next('postcopy-active');
  const run = moved.completed();
  await active;
  await moved.sent(256 * 1024);
  let both = moved.both('postcopy-paused');
  moved.proxy.sever('reset');
  await both;
  for (const direction of ['toTarget', 'toClient'] as const) {
    for (const after of [10, 100, 1000]) {
      both = moved.both('postcopy-paused');
      await moved.reconnect({ direction, after, how: 'reset' });
      await both;
    }
  }
  await moved.reconnect();
  await run;
  await verified(destination);
});

/** The machine, with methods that do something else. */
function spoilt(machine: WorkloadMachine, spoils: Partial<DestinationMachine>): WorkloadMachine {
  return new Proxy(machine, {
    get: (target, name) => {
      const value: unknown = Reflect.get(name in spoils ? spoils : target, name, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

const BROKEN = new Error('spoilt by the test');
const SPOILS: readonly [string, Partial<DestinationMachine>][] = [
  ['a device of the package does not load', { loadDevice: () => Promise.reject(BROKEN) }],
  ['the machine does not commit', { commit: () => Promise.reject(BROKEN) }],
  ['the machine does not start', { start: () => Promise.reject(BROKEN) }],
];

for (const [name, spoils] of SPOILS) {
  test(`the guest never runs there, as ${name}: it goes on at the source`, async (t) => {
    const { source, destination } = await machines(t);
    await source.resume();
    const moved = await PostcopyMove.between({ source, destination: spoilt(destination, spoils), bandwidth: MIB });
    moved.outgoing.startPostcopy();
    const ended = await moved.run();
    assert.deepEqual([ended.source.status, ended.destination.status], ['failed', 'failed']);
    assert.match(explain(ended.destination.error), /spoilt by the test/);
    assert.deepEqual([source.runState, destination.runState], ['running', 'inmigrate']);
    await verified(source);
  });
}

test('the process of the destination ends in the midst of it: the source is paused, and does not run', async (t) => {
  const { source, destination } = await machines(t);
  await source.resume();
  const moved = await PostcopyMove.between({ source, destination, bandwidth: MIB });
  const active = moved.both('postcopy-active');
  moved.outgoing.startPostcopy();
  const run = moved.run();
  await active;
  const paused = moved.during(moved.here.next('postcopy-paused'));
  moved.incoming.abandon();
  await paused;
  assert.equal(source.runState, 'finish-migrate');
  moved.outgoing.abandon();
  const ended = await run;
  assert.deepEqual([ended.source.status, ended.destination.status], ['failed', 'failed']);
  assert.equal(source.runState, 'postmigrate');
});

test('the last word is lost: the destination is complete and says so, the source is paused and does not run', async (t) => {
  const { source, destination } = await machines(t);
  await source.resume();
  const moved = await PostcopyMove.between({ source, destination, bandwidth: 10 * MIB });
  const active = moved.here.next('postcopy-active');
  moved.outgoing.startPostcopy();
  const run = moved.run();
  await active;
  // Over a connection that is not the first.
  await moved.breakAndRecover('reset');
  const parted = moved.during(Promise.all([moved.here.next('postcopy-paused'), moved.there.next('completed')]));
  moved.proxy.onBytes = (direction, bytes) => {
    if (direction === 'toClient' && bytes.includes(SHUT_0)) moved.proxy.sever('reset');
  };
  await parted;
  assert.equal(source.runState, 'finish-migrate');
  assert.throws(() => moved.incoming.postcopy.recover(NO_LISTENER), /all of its memory.*can be ended/);
  moved.outgoing.abandon();
  const ended = await run;
  assert.deepEqual([ended.source.status, ended.destination.status], ['failed', 'completed']);
  assert(ended.destination.status === 'completed' && !ended.destination.confirmed);
  assert.deepEqual([source.runState, destination.runState], ['postmigrate', 'running']);
  await verified(destination);
});

test('a paused destination can be told another address before anybody has come to the first', async (t) => {
  const { source, destination } = await machines(t);
  await source.resume();
  const moved = await PostcopyMove.between({ source, destination, bandwidth: 10 * MIB });
  const active = moved.both('postcopy-active');
  moved.outgoing.startPostcopy();
  const run = moved.completed();
  await active;
  assert.throws(() => moved.incoming.postcopy.recover(NO_LISTENER), /no paused postcopy/);
  const paused = moved.both('postcopy-paused');
  moved.proxy.sever('end');
  await paused;
  const first = await listen(LOOPBACK);
  moved.incoming.postcopy.recover(first);
  await moved.reconnect();
  await assert.rejects(connect(first.address), /ECONNREFUSED/);
  await run;
  await verified(destination);
});

test('a machine with a VF takes no part in it, at either end', async (t) => {
  const withVf = { vfs: [vfOptions(BUSY_VF)], workload: { ram: 2 * MIB } };
  const without = { vfs: [], workload: { ram: 2 * MIB, deviceMemory: MIB } };
  for (const [source, destination, says] of [
    [withVf, withVf, /postcopy-ram with device 0000:00:04\.0\/vfio/],
    [without, withVf, /postcopy into a machine with 0000:00:04\.0\/vfio/],
  ] as const) {
    const pair = await vfPair(t, source, destination);
    const moved = await PostcopyMove.between({
      source: pair.source.machine,
      destination: pair.destination.machine,
    });
    const ended = await moved.run();
    assert(ended.source.status === 'failed' && ended.destination.error !== undefined);
    assert.match(`${explain(ended.source.error)} ${explain(ended.destination.error)}`, says);
    assert.equal(pair.source.machine.runState, 'running');
  }
});
