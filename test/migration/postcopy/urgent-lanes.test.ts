/** Requested pages over several preempt channels: who waits for whom, by the order in which records come. */
import assert from 'node:assert/strict';
import test, { after } from 'node:test';
import fc from 'fast-check';
import { createWorkload } from '../../../src/machine/index.ts';
import { PageLane } from '../../../src/migration/postcopy/source/page-lane.ts';
import { type Place, RemainingRam } from '../../../src/migration/postcopy/source/remaining-ram.ts';
import { UrgentLanes } from '../../../src/migration/postcopy/source/urgent-lanes.ts';
import { Statistics } from '../../../src/migration/statistics.ts';
import { ChannelOutput } from '../../../src/transport/index.ts';
import { memoryPair } from '../../support/memory-channel.ts';
import { PageLog, readUrgent } from '../../support/scripted-postcopy.ts';
import { bitmapOf, PAGE } from './ram.ts';

const MIB = 1024 * 1024;
const HUGE = 2 * MIB;
const HUGE_PAGES = HUGE / PAGE;

interface Play {
  readonly lanes: UrgentLanes;
  /** What has been read by now: `block/page` of each record, all channels together. */
  readonly order: readonly string[];
  /** The same of one channel. */
  readonly of: (lane: number) => readonly string[];
  ask(block: number, page: number): void;
  /** An unread channel is read from now on. */
  read(lane: number): void;
  /** Everything has been sent and read. */
  over(): Promise<void>;
}

/** Notes its records in a list that channels share, too. */
class SharedLog extends PageLog {
  readonly #all: string[];

  constructor(all: string[]) {
    super();
    this.#all = all;
  }

  override page(block: number, offset: number, from: Buffer, at: number): void {
    super.page(block, offset, from, at);
    this.#all.push(`${block}/${offset / PAGE}`);
  }

  override zero(block: number, offset: number): void {
    super.zero(block, offset);
    this.#all.push(`${block}/${offset / PAGE}`);
  }
}

/** Three blocks: 8 MiB in pages of 2 MiB; two small ones in pages of 4 KiB. */
const machine = await createWorkload({ ram: 4 * HUGE, vcpus: 1, dirtyRate: 0, fill: 1, hostPage: HUGE });
after(() => machine.dispose());

/** Nothing has been sent yet. `unread`: channels that nobody reads yet. */
function play(count: number, unread: readonly number[] = []): Play {
  const all = machine.ram.map(({ usedLength }) => Array.from({ length: usedLength / PAGE }, (_, page) => page));
  const ram = new RemainingRam(
    machine.ram,
    all.map((pages) => bitmapOf(pages.length, pages)),
    PAGE,
  );
  const order: string[] = [];
  const channels = Array.from({ length: count }, (_, id) => {
    const [ours, theirs] = memoryPair({ name: `preempt ${id}` });
    const log = new SharedLog(order);
    log.begin(machine.ram.map(({ idstr, usedLength }) => ({ idstr, usedLength })));
    return { ours, theirs, log };
  });
  const read = (id: number) => void readUrgent(channels[id]!.theirs, channels[id]!.log).catch(() => {});
  for (let id = 0; id < count; id++) if (!unread.includes(id)) read(id);
  let failure: Error | undefined;
  const statistics = new Statistics(PAGE, 0);
  const lanes = new UrgentLanes({
    ram,
    lanes: channels.map(({ ours }) => {
      const output = new ChannelOutput(ours, { bufferBytes: 128 * 1024, bufferCount: 2 });
      return new PageLane({ machine, ram, statistics, output, pages: machine });
    }),
    targetPageSize: PAGE,
    began: (_place: Place) => {},
    idle: () => lanes.answer(),
    failed: (error) => {
      failure = error;
    },
  });
  const ask = (block: number, page: number) => {
    const { idstr, pageSize } = machine.ram[block]!;
    if (lanes.queue.add(idstr, page * PAGE, pageSize) > 0) lanes.answer();
  };
  const over = async () => {
    while (lanes.sending > 0 || lanes.queue.length > 0) {
      if (failure !== undefined) throw failure;
      await new Promise((resolve) => setImmediate(resolve));
    }
    await lanes.drained();
    for (const { ours } of channels) await ours.end();
    const records = () => channels.reduce((sum, { log }) => sum + log.order.length, 0);
    const sent = () => statistics.normalPages + statistics.zeroPages;
    while (records() < sent()) await new Promise((resolve) => setImmediate(resolve));
    for (const { ours } of channels) ours.destroy();
  };
  return { lanes, order, of: (lane) => channels[lane]!.log.order, ask, read, over };
}

/** How many records of that huge page came before `name`. */
function before(order: readonly string[], huge: number, name: string): number {
  return order.slice(0, order.indexOf(name)).filter((one) => isPartOf(one, huge)).length;
}

function isPartOf(name: string, huge: number): boolean {
  const [block, page] = name.split('/').map(Number);
  return block === 0 && Math.floor(page! / HUGE_PAGES) === huge;
}

for (const [count, waits] of [
  [1, true],
  [2, false],
  [4, false],
] as const) {
  test(`a small page is asked for behind a huge one: with ${count} ${waits ? 'it waits for all of it' : 'it does not'}`, async () => {
    const { ask, order, over } = play(count);
    ask(0, HUGE_PAGES);
    for (const page of [7, 9, 200]) ask(1, page);
    await over();
    assert.equal(order.length, HUGE_PAGES + 3);
    for (const page of [7, 9, 200]) {
      const found = before(order, 1, `1/${page}`);
      if (waits) assert.equal(found, HUGE_PAGES);
      // What the channel took at once of the huge page, and no more.
      else assert.ok(found < HUGE_PAGES / 2, `${found} of ${HUGE_PAGES} records before it`);
    }
  });
}

test('several huge pages go one after another, each in one piece on one channel, and the oldest first', async () => {
  const { ask, of, over, order } = play(3);
  for (const huge of [2, 0, 3]) ask(0, huge * HUGE_PAGES);
  ask(1, 1);
  ask(2, 2);
  await over();
  const began = [2, 0, 3].map((huge) => order.indexOf(`0/${huge * HUGE_PAGES}`));
  assert.deepEqual(
    began,
    [...began].sort((a, b) => a - b),
  );
  for (const huge of [2, 0, 3]) {
    const lanes = [0, 1, 2].filter((lane) => of(lane).some((name) => isPartOf(name, huge)));
    assert.equal(lanes.length, 1, 'one channel');
    const own = of(lanes[0]!);
    const from = own.indexOf(`0/${huge * HUGE_PAGES}`);
    assert.deepEqual(
      own.slice(from, from + HUGE_PAGES),
      Array.from({ length: HUGE_PAGES }, (_, i) => `0/${huge * HUGE_PAGES + i}`),
    );
  }
  assert.ok(before(order, 0, '1/1') === 0 && before(order, 0, '2/2') === 0, 'small pages before the second huge one');
});

test('a channel whose peer takes nothing holds up its own page only', async () => {
  const { ask, of, order, read, over } = play(2, [0]);
  // It goes on the channel that nobody reads, and stays there.
  ask(0, 0);
  for (let page = 0; page < 100; page++) ask(1, page);
  while (order.length < 100) await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(
    of(1),
    Array.from({ length: 100 }, (_, page) => `1/${page}`),
  );
  assert.equal(of(0).length, 0);
  read(0);
  await over();
  assert.equal(of(0).length, HUGE_PAGES);
});

test('stopped: nothing else begins', async () => {
  const { lanes, ask, order, of, read } = play(2, [0]);
  ask(0, 0);
  lanes.stop();
  ask(1, 5);
  read(0);
  while (lanes.sending > 0) await new Promise((resolve) => setImmediate(resolve));
  assert.ok(of(0).length < HUGE_PAGES);
  assert.ok(!order.includes('1/5'));
});

const asked = fc.oneof(
  fc.record({ block: fc.constant(0), page: fc.nat(3).map((huge) => huge * HUGE_PAGES) }),
  fc.record({ block: fc.integer({ min: 1, max: 2 }), page: fc.nat(63) }),
);

test('whatever is asked for, over however many channels: each page comes once, whole, in one piece of one channel', async () => {
  const requests = fc.array(fc.tuple(asked, fc.boolean()), { maxLength: 60 });
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 5 }), requests, async (count, list) => {
      const { ask, of, over, order } = play(count);
      for (const [{ block, page }, waits] of list) {
        ask(block, page);
        if (waits) await new Promise((resolve) => setImmediate(resolve));
      }
      await over();
      const names = new Set(list.map(([{ block, page }]) => `${block}/${page}`));
      const wanted = [...names].flatMap((name) => {
        const [block, page] = name.split('/').map(Number);
        const records = block === 0 ? HUGE_PAGES : 1;
        return Array.from({ length: records }, (_, i) => `${block}/${page! + i}`);
      });
      assert.deepEqual([...order].sort(), wanted.sort());
      for (let lane = 0; lane < count; lane++) {
        const own = of(lane);
        for (const [at, name] of own.entries()) {
          const page = Number(name.split('/')[1]);
          if (name.startsWith('0/') && page % HUGE_PAGES !== 0) assert.equal(own[at - 1], `0/${page - 1}`);
        }
      }
    }),
    { numRuns: 30 },
  );
});
