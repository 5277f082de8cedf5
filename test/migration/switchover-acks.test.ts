/** switchover-ack: who waits for which word, in both dialects, with devices that have initial data at one side only, and with peers that say nothing. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { explain } from '../../src/base/index.ts';
import type { SectionName } from '../../src/machine/index.ts';
import { SwitchoverAcks } from '../../src/migration/destination/switchover-acks.ts';
import { type MigrationInfo, OutgoingMigration, type OutgoingResult } from '../../src/migration/index.ts';
import { PING_HELLO, PONG_VMFERRY } from '../../src/migration/return-path.ts';
import type { StreamEvent } from '../../src/wire/index.ts';
import { assertCompleted } from '../support/completed.ts';
import { memoryPair } from '../support/memory-channel.ts';
import { testSettings } from '../support/move.ts';
import { ScriptedDestination } from '../support/scripted-destination.ts';
import { ScriptedIterable } from '../support/scripted-iterable.ts';
import { ScriptedSource } from '../support/scripted-machines.ts';

const OLD = 'scripted-11.0';
const NEW = 'scripted-11.1';

interface Peer {
  /** It answers as vmferry does. */
  readonly vmferry?: boolean;
  /** How many ACKs it says when the return path is open, and when so many devices (idstr) have said INIT_DATA_SENT. */
  readonly atOnce?: number;
  readonly acks?: (announced: readonly string[]) => number;
  /** Sections of RAM that it waits for before it gives an ACK: the source goes on meanwhile. */
  readonly patience?: number;
}

interface Seen {
  readonly result: OutgoingResult;
  /** Devices that said INIT_DATA_SENT, and `ack`, `stop` (the END sections begin), in their order. */
  readonly order: readonly string[];
  /** What query-migrate said while the peer was asked for an ACK. */
  readonly infos: readonly MigrationInfo[];
  readonly runState: string;
}

interface Case {
  readonly machineType: string;
  readonly devices: readonly ScriptedIterable[];
  readonly peer: Peer;
  /** Capability; default on. */
  readonly on?: boolean;
  readonly timeoutMs?: number;
}

async function play({ machineType, devices, peer, on = true, timeoutMs = 60_000 }: Case): Promise<Seen> {
  const machine = new ScriptedSource(machineType, 16, 2, devices);
  const [ours, theirs] = memoryPair();
  const settings = testSettings((one) => {
    one.setCapabilities([
      { capability: 'return-path', state: true },
      { capability: 'switchover-ack', state: on },
    ]);
    one.setParameters({ 'downtime-limit': 2_000_000, 'x-switchover-ack-timeout': timeoutMs });
  });
  const migration = new OutgoingMigration({ machine, settings, connect: async () => ours, returnPath: () => true });
  const order: string[] = [];
  const infos: MigrationInfo[] = [];
  const script = destination(new ScriptedDestination(theirs), peer, order, () => infos.push(migration.info()));
  const [result] = await Promise.all([migration.run(), script]);
  return { result, order, infos, runState: machine.runState };
}

/** Reads to the end, or until the source has given up. */
async function destination(to: ScriptedDestination, peer: Peer, order: string[], look: () => void): Promise<void> {
  const announced: string[] = [];
  let said = 0;
  let wait = 0;
  const ack = async (upTo: number) => {
    for (; said < upTo; said++) {
      order.push('ack');
      await to.say({ type: 'SWITCHOVER_ACK' });
    }
  };
  const take = async (event: StreamEvent) => {
    if (event.kind === 'command' && event.command.name === 'OPEN_RETURN_PATH') await ack(peer.atOnce ?? 0);
    else if (event.kind === 'command' && event.command.name === 'PING') {
      const { value } = event.command;
      if (value === PING_HELLO && peer.vmferry === true) await to.say({ type: 'PONG', value: PONG_VMFERRY });
      await to.say({ type: 'PONG', value });
    } else if (event.kind === 'vfio' && event.element.tag === 'DEV_INIT_DATA_SENT') {
      order.push(event.section.idstr);
      announced.push(event.section.idstr);
      wait = peer.patience ?? 5;
    } else if (event.kind === 'section-begin' && event.section.kind === 'end') {
      if (event.section.idstr === 'ram') order.push('stop');
    } else if (event.kind === 'section-end' && event.section.idstr === 'ram' && announced.length > 0) {
      if (--wait > 0) return;
      look();
      await ack((peer.atOnce ?? 0) + (peer.acks?.(announced) ?? 0));
    } else if (event.kind === 'description') await to.say({ type: 'SHUT', value: 0 });
  };
  try {
    for (let event = await to.next(); event !== undefined; event = await to.next()) await take(event);
  } catch {
    // The source has given up.
  }
}

const each = (announced: readonly string[]) => announced.length;
const whenAll = (count: number) => (announced: readonly string[]) => (announced.length >= count ? 1 : 0);
const A = (blocks = 2, renewals = 0) => new ScriptedIterable('a/vfio', blocks, renewals);
const B = (blocks = 3) => new ScriptedIterable('b/vfio', blocks);

/** The order that must be seen, and what the statistics say in the end. */
const GOOD: readonly [name: string, test: Case, order: readonly string[], state: MigrationInfo['x-switchover-ack']][] =
  [
    [
      'up to 11.0 one ACK, when all are ready',
      { machineType: OLD, devices: [A(), B()], peer: { acks: whenAll(2) } },
      ['a/vfio', 'b/vfio', 'ack', 'stop'],
      'given',
    ],
    [
      'from 11.1 an ACK for each',
      { machineType: NEW, devices: [A(), B(20)], peer: { acks: each, patience: 2 } },
      ['a/vfio', 'ack', 'b/vfio', 'ack', 'stop'],
      'given',
    ],
    [
      'from 11.1 new initial data is waited for too',
      { machineType: NEW, devices: [A(1, 2)], peer: { acks: each } },
      ['a/vfio', 'a/vfio', 'a/vfio', 'ack', 'ack', 'ack', 'stop'],
      'given',
    ],
    [
      'up to 11.0 it cannot be said: the destination counts once',
      { machineType: OLD, devices: [A(1, 2)], peer: { acks: whenAll(1) } },
      ['a/vfio', 'ack', 'stop'],
      'given',
    ],
    [
      'up to 11.0 a destination that waits for none says so first, and is told nothing that it would not take',
      { machineType: OLD, devices: [A()], peer: { atOnce: 1 } },
      ['ack', 'stop'],
      'given',
    ],
    [
      'without initial data at this side nobody is waited for, up to 11.0',
      { machineType: OLD, devices: [A(0)], peer: {} },
      ['stop'],
      undefined,
    ],
    [
      'without initial data at this side nobody is waited for, from 11.1',
      { machineType: NEW, devices: [A(0)], peer: { vmferry: true } },
      ['stop'],
      undefined,
    ],
    [
      'a machine without devices, up to 11.0',
      { machineType: OLD, devices: [], peer: { atOnce: 1 } },
      ['ack', 'stop'],
      undefined,
    ],
    ['a machine without devices, from 11.1', { machineType: NEW, devices: [], peer: {} }, ['stop'], undefined],
    [
      'up to 11.0 a vmferry destination may count a device that has initial data there only: it is said to be ready',
      { machineType: OLD, devices: [A(0), B()], peer: { vmferry: true, acks: whenAll(2) } },
      ['a/vfio', 'b/vfio', 'ack', 'stop'],
      'given',
    ],
    [
      'a QEMU would not take that',
      { machineType: OLD, devices: [A(0), B()], peer: { acks: whenAll(1) } },
      ['b/vfio', 'ack', 'stop'],
      'given',
    ],
    [
      'up to 11.0 a second ACK changes nothing',
      { machineType: OLD, devices: [A()], peer: { acks: (all) => 2 * all.length } },
      ['a/vfio', 'ack', 'ack', 'stop'],
      'given',
    ],
    [
      'capability off: nothing is said, nothing is waited for',
      { machineType: NEW, devices: [A()], peer: {}, on: false },
      ['stop'],
      undefined,
    ],
    [
      'capability off up to 11.0: an ACK is no fault',
      { machineType: OLD, devices: [A()], peer: { atOnce: 1 }, on: false },
      ['ack', 'stop'],
      undefined,
    ],
    [
      'a peer that may not know of it and says nothing: the switchover goes on without, up to 11.0',
      { machineType: OLD, devices: [A()], peer: {}, timeoutMs: 300 },
      ['a/vfio', 'stop'],
      'missed',
    ],
    [
      'the same from 11.1',
      { machineType: NEW, devices: [A()], peer: {}, timeoutMs: 300 },
      ['a/vfio', 'stop'],
      'missed',
    ],
  ];

for (const [name, which, order, state] of GOOD) {
  test(name, async () => {
    const seen = await play(which);
    assertCompleted(seen.result);
    assert.deepEqual(seen.order, order);
    assert.equal(seen.result.info['x-switchover-ack'], state);
    assert.equal(seen.result.info['x-waiting-for'], undefined);
  });
}

test('while it waits, query-migrate says for what', async () => {
  const { infos } = await play({ machineType: NEW, devices: [A()], peer: { acks: each } });
  const [info] = infos;
  assert.equal(info?.status, 'active');
  assert.match(info['x-waiting-for'] ?? '', /the destination to load initial data of a\/vfio/);
  assert.equal(info['x-switchover-ack'], 'awaited');
});

for (const machineType of [OLD, NEW]) {
  test(`${machineType}: a vmferry destination that never says it ends the migration with the reason; the guest goes on here`, async () => {
    const seen = await play({ machineType, devices: [A(), B()], peer: { vmferry: true }, timeoutMs: 300 });
    assert(seen.result.status === 'failed');
    assert.match(
      explain(seen.result.error),
      /waited 300 ms for the destination to load initial data of a\/vfio, b\/vfio/,
    );
    assert.deepEqual(seen.order, ['a/vfio', 'b/vfio']);
    assert.equal(seen.runState, 'running');
  });
}

for (const [name, peer, on] of [
  ['before anything was sent', { atOnce: 1 }, true],
  ['once too often', { acks: (all: readonly string[]) => 2 * all.length }, true],
  ['with the capability off', { atOnce: 1 }, false],
] as const) {
  test(`from 11.1 an ACK that nobody asked for, ${name}`, async () => {
    const seen = await play({ machineType: NEW, devices: [A(), B(2000)], peer, on });
    if (!on) return assert.equal(seen.result.status, 'completed');
    assert(seen.result.status === 'failed');
    assert.match(explain(seen.result.error), /more often than it was sent/);
    assert.equal(seen.runState, 'running');
  });
}

const names = (...idstrs: string[]): SectionName[] => idstrs.map((idstr) => ({ idstr, instance: 0 }));

/** Devices that want to be waited for; what happens: `open`, or a device whose initial data is loaded; how many ACKs were said after each. */
const DESTINATIONS: readonly [
  legacy: boolean,
  expected: boolean,
  devices: readonly string[],
  events: readonly string[],
  acks: readonly number[],
][] = [
  [true, true, [], ['open'], [1]],
  [true, true, [], ['open', 'a'], [1, 1]],
  [true, true, ['a'], ['open', 'a', 'a'], [0, 1, 1]],
  [true, true, ['a', 'b'], ['open', 'b', 'b', 'a'], [0, 0, 0, 1]],
  [true, true, ['a'], ['open', 'b', 'a'], [0, 0, 1]],
  // No word that a source without the capability might choke on; but one that asks is answered.
  [true, false, [], ['open'], [0]],
  [true, false, ['a'], ['open', 'a'], [0, 1]],
  [true, true, ['a'], ['a'], [0]],
  [false, true, [], ['open', 'a', 'a', 'b'], [0, 1, 2, 3]],
  [false, true, ['a', 'b'], ['open', 'a', 'b', 'a'], [0, 1, 2, 3]],
  [false, false, ['a'], ['open', 'a'], [0, 1]],
  [false, true, ['a'], ['a'], [0]],
];

for (const [legacy, expected, devices, events, acks] of DESTINATIONS) {
  const dialect = legacy ? 'up to 11.0' : 'from 11.1';
  test(`destination ${dialect}, capability ${expected ? 'on' : 'off'}, waited for: ${devices.join(' ') || 'none'}; ${events.join(', ')}`, () => {
    let said = 0;
    const subject = new SwitchoverAcks({ legacy, expected, devices: names(...devices), acknowledge: () => said++ });
    const after = events.map((event) => {
      if (event === 'open') subject.returnPathOpened();
      else subject.loaded({ idstr: event, instance: 0 });
      return said;
    });
    assert.deepEqual(after, acks);
  });
}
