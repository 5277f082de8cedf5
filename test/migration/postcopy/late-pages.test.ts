/** The way of pages into a machine that runs already: host pages become visible whole, once, and what is there is not written any more. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { FerryError } from '../../../src/base/index.ts';
import type { DestinationMachine, IncomingRam, MissingRam, PageFault, RamBlock } from '../../../src/machine/index.ts';
import { LatePages } from '../../../src/migration/postcopy/destination/late-pages.ts';
import { UrgentReceiver } from '../../../src/migration/postcopy/destination/urgent-receiver.ts';
import { RAM_RECORD_HEADER_MAX, type ReturnPathMessage, writeEos, writePageRecord } from '../../../src/wire/index.ts';
import { damage, generator } from '../../fuzz/damage.ts';
import { memoryPair } from '../../support/memory-channel.ts';
import { blockOf, PAGE } from './ram.ts';

/** Memory of which one byte a page is kept, and that fails if anybody looks too early, or writes too late. */
class FakeMachine implements MissingRam {
  readonly pageSizes: readonly number[];
  readonly vcpuCount = 2;
  readonly runsEarly = true;
  readonly blocks: readonly RamBlock[];
  readonly bytes: number[][];
  readonly present: boolean[][];
  readonly placed: string[] = [];
  fault: (fault: PageFault) => void = () => {};
  readonly ram: IncomingRam;
  readonly machine: DestinationMachine;

  constructor(blocks: readonly RamBlock[]) {
    this.blocks = blocks;
    this.pageSizes = blocks.map(({ pageSize }) => pageSize);
    this.bytes = blocks.map(({ usedLength }) => Array(usedLength / PAGE).fill(0));
    this.present = blocks.map(({ usedLength }) => Array(usedLength / PAGE).fill(true));
    const put = (block: number, offset: number, byte: number) => {
      assert.ok(!this.present[block]![offset / PAGE], 'a page that the guest can see is written');
      this.bytes[block]![offset / PAGE] = byte;
    };
    this.ram = {
      page: (block, offset, from, at) => put(block, offset, from[at]!),
      zero: (block, offset) => put(block, offset, 0),
      read: () => assert.fail('nothing of a postcopy is read back'),
      share: () => assert.fail('no threads here'),
    };
    this.machine = {
      targetPageSize: PAGE,
      missingRam: () => this,
    } as Partial<DestinationMachine> as DestinationMachine;
  }

  drop(block: number, page: number, count: number): void {
    this.present[block]!.fill(false, page, page + count);
  }

  async begin(fault: (fault: PageFault) => void): Promise<void> {
    this.fault = fault;
  }

  place(block: number, page: number, count: number): void {
    for (let i = page; i < page + count; i++) assert.equal(this.present[block]![i], false, 'placed twice');
    this.present[block]!.fill(true, page, page + count);
    this.placed.push(`${block}/${page}`);
  }

  async end(): Promise<void> {}
}

function latePages(blocks: readonly RamBlock[], said: ReturnPathMessage[] = [], blocktime = false) {
  const fake = new FakeMachine(blocks);
  const summary = blocks.reduce((sum, { pageSize }) => sum | BigInt(pageSize), 0n);
  const pages = new LatePages({
    machine: fake.machine,
    ram: fake.ram,
    blocks: blocks.map(({ idstr, usedLength, pageSize }) => ({ idstr, usedLength, pageSize })) as never,
    advised: { summary, target: BigInt(PAGE) },
    blocktime,
    say: (message) => said.push(message),
  });
  return { fake, pages };
}

const page = (byte: number) => Buffer.alloc(PAGE, byte);

test('several channels in any order, broken off and begun anew: each host page is placed once, with what one of them brought', () => {
  const scenario = fc.record({
    hostPages: fc.constantFrom(1, 4, 16),
    steps: fc.array(fc.record({ channel: fc.nat(4), records: fc.integer({ min: 1, max: 40 }), breaks: fc.boolean() }), {
      maxLength: 60,
    }),
    orders: fc.array(fc.array(fc.nat(7), { maxLength: 12 }), { minLength: 2, maxLength: 5 }),
  });
  fc.assert(
    fc.property(scenario, ({ hostPages, steps, orders }) => {
      const { fake, pages } = latePages([blockOf('a', 8 * hostPages, hostPages)]);
      pages.discard('a', [{ start: 0, length: 8 * hostPages * PAGE }]);
      const lanes = orders.map((order, channel) => ({
        sink: pages.sink(`channel ${channel}`),
        order: [...order],
        at: 0,
        byte: channel + 1,
      }));
      for (const { sink } of lanes) sink.listen();
      for (const { channel, records, breaks } of steps) {
        const lane = lanes[channel % lanes.length]!;
        for (let left = records; left > 0 && lane.order.length > 0; left--) {
          const target = lane.order[0]! * hostPages + lane.at;
          lane.sink.page(0, target * PAGE, page(lane.byte), 0);
          if (++lane.at < hostPages) continue;
          lane.at = 0;
          lane.order.shift();
        }
        // A host page that was not whole is sent again from its beginning.
        if (!breaks) continue;
        lane.sink.reset();
        lane.at = 0;
      }
      for (let first = 0; first < 8 * hostPages; first += hostPages) {
        const visible = fake.present[0]!.slice(first, first + hostPages);
        assert.equal(new Set(visible).size, 1, 'a host page is there as a whole or not at all');
        assert.equal(pages.received.has(0, first), visible[0]);
        if (visible[0]) assert.ok(fake.bytes[0]!.slice(first, first + hostPages).every((byte) => byte > 0));
      }
      assert.equal(pages.received.missing, fake.present[0]!.filter((there) => !there).length);
      assert.equal(new Set(fake.placed).size, fake.placed.length);
    }),
  );
});

const MISPLACED: readonly [string, readonly [number, number][], number][] = [
  ['it begins inside a host page', [[0, 5]], 4],
  [
    'a page is left out',
    [
      [0, 4],
      [0, 6],
    ],
    5,
  ],
  [
    'another host page begins before it is whole',
    [
      [0, 4],
      [0, 8],
    ],
    5,
  ],
  [
    'another block begins before it is whole',
    [
      [0, 4],
      [1, 0],
    ],
    5,
  ],
];

for (const [name, records, expected] of MISPLACED) {
  test(`a host page that does not come in order ends the connection: ${name}`, () => {
    const { pages } = latePages([blockOf('a', 16, 4), blockOf('b', 16, 4, 1)]);
    for (const block of ['a', 'b']) pages.discard(block, [{ start: 0, length: 16 * PAGE }]);
    const sink = pages.sink('main');
    sink.listen();
    assert.throws(
      () => {
        for (const [block, target] of records) sink.zero(block, target * PAGE);
      },
      (thrown) =>
        thrown instanceof FerryError && thrown.fault.expected === expected && /main: block/.test(thrown.message),
    );
  });
}

test('who waits: one request for all of them, each with its own time, the whole host page at once', async () => {
  const said: ReturnPathMessage[] = [];
  const { fake, pages } = latePages([blockOf('a', 16, 4)], said, true);
  pages.discard('a', [{ start: 0, length: 16 * PAGE }]);
  await pages.begin();
  for (const vcpu of [0, 1]) fake.fault({ vcpu, block: 0, page: 5 + vcpu, sinceNs: 0 });
  assert.deepEqual(said, [{ type: 'REQ_PAGES_ID', block: 'a', start: 4 * PAGE, length: 4 * PAGE }]);
  const whole = pages.whole();
  const sink = pages.sink('main');
  sink.listen();
  for (let target = 0; target < 16; target++) sink.page(0, target * PAGE, page(9), 0);
  await whole;
  fake.fault({ vcpu: 0, block: 0, page: 5, sinceNs: 0 });
  assert.equal(said.length, 1, 'a page that has come meanwhile is not asked for');
  const figures = pages.figures!;
  assert.equal(
    figures['postcopy-latency-dist'].reduce((sum, count) => sum + count),
    2,
  );
  assert.ok(figures['postcopy-vcpu-latency'].every((ns) => ns > 0));
});

for (const [name, advised] of [
  ['host page sizes', { summary: 0x201000n, target: 4096n }],
  ['target page size', { summary: 0x1000n, target: 16384n }],
] as const) {
  test(`a source of other ${name} is refused`, () => {
    const fake = new FakeMachine([blockOf('a', 16)]);
    const blocks = [{ idstr: 'a', usedLength: 16 * PAGE }] as never;
    const parts = { machine: fake.machine, ram: fake.ram, blocks, advised, blocktime: false, say: () => {} };
    assert.throws(() => new LatePages(parts), new RegExp(name));
  });
}

/** Host pages of block a, as a preempt channel has them, and EOS. */
function urgentBytes(order: readonly number[], hostPages: number): Buffer {
  const out = Buffer.alloc(order.length * hostPages * (PAGE + RAM_RECORD_HEADER_MAX) + 8);
  let at = 0;
  for (const [index, host] of order.entries()) {
    for (let i = 0; i < hostPages; i++) {
      const name = index + i === 0 ? Buffer.from('a') : undefined;
      at = writePageRecord(out, at, (host * hostPages + i) * PAGE, name, page(7), 0, PAGE);
    }
  }
  return out.subarray(0, writeEos(out, at));
}

async function receiveUrgent(bytes: Buffer, hostPages: number) {
  const blocks = [blockOf('a', 8 * hostPages, hostPages)];
  const { fake, pages } = latePages(blocks);
  pages.discard('a', [{ start: 0, length: 8 * hostPages * PAGE }]);
  const sink = pages.sink('preempt');
  sink.listen();
  const [source, destination] = memoryPair();
  const announced = blocks.map(({ idstr, usedLength }) => ({ idstr, usedLength })) as never;
  const receiver = new UrgentReceiver(destination, { pageSize: PAGE, blocks: announced, sink, drain: async () => {} });
  const ended = receiver.run().catch((error: unknown) => error);
  await source.write(bytes).then(
    () => source.end(),
    () => {},
  );
  const outcome = await ended;
  for (const channel of [source, destination]) channel.destroy();
  return { outcome, fake, receiver };
}

test('a preempt channel: host pages, then EOS, or the end between two records', async () => {
  const bytes = urgentBytes([5, 0, 3], 4);
  const eos = await receiveUrgent(bytes, 4);
  assert.equal(eos.outcome, 'eos');
  assert.deepEqual(eos.fake.placed, ['0/20', '0/0', '0/12']);
  assert.equal(eos.receiver.counts.normal, 12);
  const ended = await receiveUrgent(bytes.subarray(0, -8), 4);
  assert.equal(ended.outcome, 'end');
  const torn = await receiveUrgent(bytes.subarray(0, -100), 4);
  assert.ok(torn.outcome instanceof FerryError);
  assert.deepEqual(torn.fake.placed, ['0/20', '0/0'], 'of the torn one nothing is seen');
});

test('a preempt channel of damaged bytes: an error that says where, or pages that fit', async () => {
  for (let seed = 1; seed <= 300; seed++) {
    const random = generator(seed * 7919);
    const { outcome } = await receiveUrgent(damage(urgentBytes([random(8), random(8), random(8)], 2), random), 2);
    const good = outcome === 'eos' || outcome === 'end' || outcome instanceof FerryError;
    assert.ok(good, `seed ${seed}: ${outcome instanceof Error ? outcome.stack : outcome}`);
  }
});
