/** Which preempt channel a requested page takes: small pages are never held up by huge ones, huge ones of one size go one after another. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { LaneChoice } from '../../../src/migration/postcopy/source/lane-choice.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;
const SMALL = 4 * KIB;

const idleLanes = (count: number) => Array.from({ length: count }, () => ({ ahead: 0 }));

for (const [name, sizes, lanes, tiers] of [
  ['one channel knows no difference', [GIB, SMALL, 2 * MIB], 1, [0, 0, 0]],
  ['two: everything huge shares', [GIB, SMALL, 2 * MIB], 2, [1, 0, 1]],
  ['three: each size for itself', [GIB, SMALL, 2 * MIB], 3, [2, 0, 1]],
  ['more: what is too many is for small pages', [GIB, SMALL, 2 * MIB, GIB], 16, [2, 0, 1, 2]],
  ['up to 64 KiB a page is small', [64 * KIB, SMALL, 64 * KIB + SMALL], 4, [0, 0, 1]],
  ['only huge ones', [2 * MIB], 4, [1]],
  ['only small ones', [SMALL, SMALL], 4, [0, 0]],
] as const) {
  test(`tiers: ${name}`, () => assert.deepEqual(new LaneChoice(sizes, lanes).tiers, tiers));
}

test('a page of 1 GiB is in work: pages of 4 KiB go on, others of 1 GiB wait', () => {
  const choice = new LaneChoice([GIB, SMALL], 4);
  const lanes = idleLanes(4);
  const huge = choice.idle(lanes);
  choice.begin(huge, 0);
  assert.equal(choice.open, 0b01);
  const small = choice.idle(lanes);
  assert.notEqual(small, huge);
  choice.begin(small, 1);
  choice.end(small);
  assert.equal(choice.open, 0b01);
  choice.end(huge);
  assert.equal(choice.open, 0b11);
});

test('of idle channels the one with the fewest bytes ahead, then the one that has rested longest', () => {
  const choice = new LaneChoice([SMALL], 3);
  assert.equal(choice.idle([{ ahead: 7 }, { ahead: 3 }, { ahead: 5 }]), 1);
  choice.begin(1, 0);
  assert.equal(choice.idle([{ ahead: 7 }, { ahead: 3 }, { ahead: 5 }]), 2);
  const order: number[] = [];
  choice.end(1);
  for (let i = 0; i < 6; i++) {
    const lane = choice.idle(idleLanes(3));
    order.push(lane);
    choice.begin(lane, 0);
    choice.end(lane);
  }
  assert.deepEqual(order, [0, 2, 1, 0, 2, 1]);
  for (const lane of [0, 1, 2]) choice.begin(lane, 0);
  assert.equal(choice.idle(idleLanes(3)), -1);
});

const sizes = fc.array(fc.constantFrom(SMALL, 64 * KIB, 2 * MIB, GIB), { minLength: 1, maxLength: 5 });
const step = fc.record({ block: fc.nat(4), lane: fc.nat(15), ends: fc.boolean(), ahead: fc.array(fc.nat(9)) });

test('whatever is asked for and however long it takes: the rules hold at each step', () => {
  fc.assert(
    fc.property(sizes, fc.integer({ min: 1, max: 16 }), fc.array(step, { maxLength: 120 }), (pages, count, steps) => {
      const choice = new LaneChoice(pages, count);
      const working: (number | undefined)[] = Array(count).fill(undefined);
      const tierOf = (lane: number) => (working[lane] === undefined ? -1 : choice.tiers[working[lane]!]!);
      for (const { block, lane, ends, ahead } of steps) {
        const at = lane % count;
        if (ends) {
          if (working[at] === undefined) continue;
          working[at] = undefined;
          choice.end(at);
        } else {
          const page = block % pages.length;
          const lanes = Array.from({ length: count }, (_, i) => ({ ahead: ahead[i] ?? 0 }));
          const free = [...working.keys()].filter((i) => working[i] === undefined);
          const chosen = choice.idle(lanes);
          assert.equal(chosen < 0, free.length === 0);
          if (chosen < 0) continue;
          assert.ok(free.includes(chosen));
          assert.equal(lanes[chosen]!.ahead, Math.min(...free.map((i) => lanes[i]!.ahead)));
          if ((choice.open & (1 << choice.tiers[page]!)) === 0) continue;
          working[chosen] = page;
          choice.begin(chosen, page);
        }
        const huge = [...working.keys()].map(tierOf).filter((tier) => tier > 0);
        assert.equal(new Set(huge).size, huge.length, 'one channel a size');
        assert.ok(huge.length < count, 'a channel is left for small pages');
        assert.ok((choice.open & 1) === 1, 'small pages never wait for more than a channel');
        for (const [i, size] of pages.entries()) {
          const blocked = (choice.open & (1 << choice.tiers[i]!)) === 0;
          assert.equal(blocked, huge.includes(choice.tiers[i]!));
          for (const [j, other] of pages.entries()) if (size < other) assert.ok(choice.tiers[i]! <= choice.tiers[j]!);
        }
      }
    }),
  );
});
