/** What the downtime is reckoned with: how fast the link was when it mattered, and what loading costs over there. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import type { LoadCost, LoadOrder, SwitchoverCost } from '../../src/machine/index.ts';
import { OutgoingMigration } from '../../src/migration/index.ts';
import {
  loadCostPart,
  loadCostWords,
  PING_ARRIVED,
  PING_BURST,
  PING_HELLO,
  PING_LOAD_COST,
  PONG_VMFERRY,
} from '../../src/migration/return-path.ts';
import type { ReturnPathReader } from '../../src/migration/source/return-path-reader.ts';
import { SwitchoverCosts } from '../../src/migration/source/switchover-costs.ts';
import { Statistics } from '../../src/migration/statistics.ts';
import { type DeviceToLoad, loadCostOf } from '../../src/vfio/machine/load-record.ts';
import { assertCompleted } from '../support/completed.ts';
import { memoryPair } from '../support/memory-channel.ts';
import { testSettings } from '../support/move.ts';
import { ScriptedDestination } from '../support/scripted-destination.ts';
import { ScriptedIterable } from '../support/scripted-iterable.ts';
import { ScriptedSource } from '../support/scripted-machines.ts';

const MAX_BANDWIDTH_DEFAULT = 134_217.728;

/** Passes: bytes and ms while there was always something to send, or of what has arrived; then bytes a ms to plan with, busy and idle. */
const LINKS: readonly [
  name: string,
  busy: readonly (readonly [bytes: number, ms: number])[],
  arrived: readonly (readonly [bytes: number, ms: number])[],
  whenBusy: number,
  whenIdle: number,
][] = [
  ['nothing is known', [], [], 0, MAX_BANDWIDTH_DEFAULT],
  ['the first moments say nothing', [[10_000, 20]], [], 0, MAX_BANDWIDTH_DEFAULT],
  ['a quarter of a window says something', [[50_000, 25]], [], 2_000, 2_000],
  [
    'a window',
    [
      [50_000, 50],
      [150_000, 50],
    ],
    [],
    2_000,
    2_000,
  ],
  [
    'the slowest of the last four',
    [
      [1, 100],
      [400_000, 100],
      [300_000, 100],
      [500_000, 100],
      [600_000, 100],
    ],
    [],
    3_000,
    3_000,
  ],
  ['a link that stood still', [[0, 1_500]], [], 0, MAX_BANDWIDTH_DEFAULT],
  [
    'what has arrived at once',
    [],
    [
      [500_000, 5],
      [70_000, 7],
    ],
    0,
    100_000,
  ],
  ['and what came before, slowly', [[100_000, 100]], [[500_000, 5]], 1_000, 100_000],
  ['little that took long does not count against it', [[900_000, 100]], [[70_000, 70]], 9_000, 9_000],
];

for (const [name, busy, arrived, whenBusy, whenIdle] of LINKS) {
  test(`bandwidth to plan with: ${name}`, () => {
    const statistics = new Statistics(4096, 0);
    for (const [bytes, ms] of busy) statistics.busy(bytes, ms);
    for (const [bytes, ms] of arrived) statistics.arrived(bytes, ms);
    assert.deepEqual([statistics.cautiousBandwidth(false), statistics.cautiousBandwidth(true)], [whenBusy, whenIdle]);
  });
}

test('while the destination prepared itself it was slow: that is forgotten, what has arrived is not', () => {
  const statistics = new Statistics(4096, 0);
  statistics.busy(100, 1_000);
  statistics.arrived(300_000, 10);
  statistics.forgetBandwidth();
  assert.deepEqual([statistics.cautiousBandwidth(false), statistics.cautiousBandwidth(true)], [0, 30_000]);
});

const EASY: DeviceToLoad = {
  figures: { allocationMs: 9_999, bytesPerMs: 1_000, configMs: 70 },
  allocationMs: 0,
  startMs: 4,
  lock: false,
};
const LOCKED: DeviceToLoad = { ...EASY, lock: true };

test('devices load together, those under the machine lock one after the other', () => {
  const cases: readonly [devices: readonly DeviceToLoad[], ms: number, bytesPerMs: number][] = [
    [[], 0, Number.POSITIVE_INFINITY],
    [[EASY], 74, 1_000],
    [[EASY, EASY, EASY], 74, 1_000],
    [[LOCKED], 74, 1_000],
    [[LOCKED, LOCKED, LOCKED], 214, 1_000],
    [[LOCKED, { ...EASY, allocationMs: 1_480 }], 1_554, 1_000],
    [[LOCKED, LOCKED, { ...LOCKED, allocationMs: 100 }], 314, 1_000],
    [[EASY, { ...EASY, figures: { ...EASY.figures, bytesPerMs: 10 } }], 74, 10],
  ];
  for (const [devices, ms, bytesPerMs] of cases) assert.deepEqual(loadCostOf(devices, 'parallel'), { ms, bytesPerMs });
});

test('in other orders it takes as long as that order takes', () => {
  const devices = [EASY, LOCKED, { ...LOCKED, allocationMs: 100 }];
  for (const [order, ms] of [
    ['parallel', 104 + 2 * 70],
    ['after-iterables', 104 + 2 * 70],
    ['serial', 104 + 3 * 70],
    ['in line', 3 * 74 + 100],
  ] as const)
    assert.equal(loadCostOf(devices, order).ms, ms, order);
  assert.equal(
    loadCostOf([EASY, { ...EASY, allocationMs: 100, figures: { ...EASY.figures, configMs: 0 } }], 'parallel').ms,
    104,
  );
  assert.equal(
    loadCostOf([EASY, { ...EASY, allocationMs: 100, figures: { ...EASY.figures, configMs: 0 } }], 'after-iterables').ms,
    174,
  );
});

test('what loading costs is told by the numbers of PONGs, and means nothing else', () => {
  const rate = fc.oneof(fc.constant(Number.POSITIVE_INFINITY), fc.double({ min: 1, max: 1e8, noNaN: true }));
  fc.assert(
    fc.property(fc.double({ min: 0, max: 1e6, noNaN: true }), rate, (ms, bytesPerMs) => {
      const words = loadCostWords({ ms, bytesPerMs });
      assert.ok(words.every((word) => Number.isInteger(word) && word >= 0 && word <= 0xffff_ffff));
      const told = Object.assign({}, ...words.map(loadCostPart));
      assert.equal(told.ms, Math.ceil(ms));
      if (bytesPerMs === Number.POSITIVE_INFINITY) assert.equal(told.bytesPerMs, bytesPerMs);
      else assert.ok(Math.abs(told.bytesPerMs - bytesPerMs) <= 1024, `${told.bytesPerMs} for ${bytesPerMs}`);
    }),
  );
  for (const word of [0, 1, 3, 0x42, PING_HELLO, PONG_VMFERRY, PING_LOAD_COST, PING_BURST, PING_ARRIVED]) {
    assert.equal(loadCostPart(word), undefined);
  }
});

class CostlySource extends ScriptedSource {
  asked: (order: LoadOrder) => void = () => {};

  async switchoverCost(order: LoadOrder): Promise<SwitchoverCost> {
    this.asked(order);
    return { stopMs: 1, load: { ms: 1, bytesPerMs: Number.POSITIVE_INFINITY } };
  }
}

/** What the destination says that loading costs, answer by answer, ms; the last one from then on. */
async function play(costs: readonly number[], vmferry: boolean) {
  const machine = new CostlySource('scripted-11.1', 16, 2, [new ScriptedIterable('a/vfio', 1)]);
  const [ours, theirs] = memoryPair();
  const settings = testSettings((one) => one.setParameters({ 'downtime-limit': 10_000 }));
  const migration = new OutgoingMigration({ machine, settings, connect: async () => ours, returnPath: () => true });
  const peer = new ScriptedDestination(theirs);
  const order: string[] = [];
  let asked = 0;
  const script = async () => {
    for (let event = await peer.next(); event !== undefined; event = await peer.next()) {
      if (event.kind === 'section-begin' && event.section.kind === 'end' && event.section.idstr === 'ram')
        order.push('stop');
      if (event.kind === 'description') await peer.say({ type: 'SHUT', value: 0 });
      if (event.kind !== 'command' || event.command.name !== 'PING') continue;
      const { value } = event.command;
      if (value === PING_HELLO && vmferry) await peer.say({ type: 'PONG', value: PONG_VMFERRY });
      if (value === PING_LOAD_COST) {
        const ms = costs[Math.min(asked++, costs.length - 1)]!;
        order.push(String(ms));
        for (const word of loadCostWords({ ms, bytesPerMs: 1e6 })) await peer.say({ type: 'PONG', value: word });
      }
      await peer.say({ type: 'PONG', value });
    }
  };
  const [result] = await Promise.all([migration.run(), script()]);
  assertCompleted(result);
  return order;
}

test('a vmferry destination is asked what loading costs, again and again; the guest is not stopped before it fits', async () => {
  const order = await play([500_000, 400_000, 20_000, 100], true);
  const stop = order.indexOf('stop');
  assert.deepEqual(order.slice(0, 4), ['500000', '400000', '20000', '100']);
  assert.ok(stop >= 4);
});

test('anyone else is not', async () => {
  assert.deepEqual(await play([500_000], false), ['stop']);
});

/** A destination as SwitchoverCosts sees it. */
interface Told {
  peer: 'vmferry' | 'other' | undefined;
  loadCost: LoadCost | undefined;
}

test('what the handshake has told of loading is known at once; what is told later counts more', async () => {
  const machine = new CostlySource('scripted-11.1', 16, 2, [new ScriptedIterable('a/vfio', 1)]);
  const returnPath: Told = { peer: undefined, loadCost: undefined };
  const first = { ms: 700, bytesPerMs: 5_000 };
  const costs = new SwitchoverCosts(machine, returnPath as unknown as ReturnPathReader, first);
  await costs.refresh();
  assert.deepEqual([costs.settled, costs.known], [true, { stopMs: 1, load: first }]);
  returnPath.loadCost = { ms: 70, bytesPerMs: 9_000 };
  assert.deepEqual(costs.known, { stopMs: 1, load: returnPath.loadCost });
  assert.equal(new SwitchoverCosts(machine, returnPath as unknown as ReturnPathReader, undefined).settled, true);
  returnPath.loadCost = undefined;
  assert.equal(new SwitchoverCosts(machine, returnPath as unknown as ReturnPathReader, undefined).settled, false);
});

test('a QEMU is assumed to load configurations one after the other', async () => {
  const orders: LoadOrder[] = [];
  const machine = new CostlySource('scripted-11.1', 16, 2, [new ScriptedIterable('a/vfio', 1)]);
  machine.asked = (order) => orders.push(order);
  for (const peer of ['other', 'vmferry', undefined] as const) {
    const returnPath: Told = { peer, loadCost: undefined };
    await new SwitchoverCosts(machine, returnPath as unknown as ReturnPathReader, undefined).refresh();
  }
  assert.deepEqual(orders, ['serial', 'parallel', 'parallel']);
});
