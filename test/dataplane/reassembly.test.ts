/** Buffers of device state in any order: the seed's deadlock, what is refused, and 10,000 interleavings as a smoke of `npm run buffers`. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { OFFER, Reassembly, type ReassemblyLimits } from '../../src/dataplane/device-state/reassembly.ts';
import { smoke } from '../campaign/campaign.ts';
import { stateBuffers } from '../campaign/state-buffers.ts';

function reassembly(limits: ReassemblyLimits): Reassembly {
  return new Reassembly(new Int32Array(Reassembly.words(limits)), limits, true);
}

test('two channels that each hold the next buffer of the other go on, with a bound of one buffer', () => {
  const state = reassembly({ devices: 2, slots: 6, queuedMax: 1 });
  // Channel 1: device 0 buffer 1, device 1 buffer 0. Channel 2: device 1 buffer 1, device 0 buffer 0.
  for (const [device, index] of [
    [0, 1],
    [1, 1],
    [1, 0],
    [0, 0],
  ] as const) {
    const slot = state.offer(device, index, index === 1);
    assert.ok(slot >= 0);
    assert.equal(state.arrived(slot), index === 0);
  }
  for (const device of [0, 1]) {
    assert.ok(state.release(state.take(device)));
    assert.ok(!state.release(state.take(device)));
    assert.ok(state.isDone(device));
  }
});

test('with a pool that cannot hold it, that order is an end that can be seen', () => {
  const state = reassembly({ devices: 2, slots: 3, queuedMax: 1 });
  assert.ok(state.offer(0, 1, true) >= 0);
  assert.equal(state.offer(1, 1, true), OFFER.WAIT);
  assert.ok(state.allStarve);
});

test('a bound of one holds while all devices have work, and gives way when one starves', () => {
  const state = reassembly({ devices: 2, slots: 8, queuedMax: 1 });
  const slow = state.offer(0, 0, false);
  const fast = state.offer(1, 0, false);
  assert.equal(state.offer(0, 1, false), OFFER.WAIT);
  state.arrived(slow);
  state.arrived(fast);
  assert.equal(state.take(0), slow);
  assert.equal(state.take(1), fast);
  assert.equal(state.offer(0, 1, false), OFFER.WAIT);
  // The fast one is through with what it has: what it needs may be behind the slow one's buffer.
  assert.ok(!state.release(fast));
  assert.ok(state.offer(0, 1, false) >= 0);
  assert.ok(state.offer(1, 1, false) >= 0);
  assert.equal(state.offer(0, 2, false), OFFER.WAIT);
});

test('what no device sends is refused', () => {
  const state = reassembly({ devices: 1, slots: 20, queuedMax: 20 });
  const add = (index: number, isLast = false) => {
    const slot = state.offer(0, index, isLast);
    if (slot >= 0) state.arrived(slot);
    return slot;
  };
  assert.ok(add(0) >= 0);
  assert.equal(add(0), OFFER.DUPLICATE);
  assert.ok(add(4) >= 0);
  assert.equal(add(4), OFFER.DUPLICATE);
  assert.equal(add(3, true), OFFER.NOT_LAST);
  const first = state.take(0);
  assert.equal(state.take(0), -1, 'one at a time');
  assert.equal(add(0), OFFER.DUPLICATE, 'while it is loaded too');
  state.release(first);
  assert.equal(add(0), OFFER.DUPLICATE, 'and afterwards');
  assert.ok(add(5, true) >= 0);
  assert.equal(add(6), OFFER.BEHIND_LAST);
  assert.equal(add(6, true), OFFER.BEHIND_LAST);
  assert.equal(add(5, true), OFFER.DUPLICATE);
  for (const index of [2, 1, 3]) assert.ok(add(index) >= 0);
  for (let index = 1; index <= 5; index++) {
    assert.equal(state.next(0), index);
    const slot = state.take(0);
    assert.equal(state.isLast(slot), index === 5);
    assert.equal(state.release(slot), index < 5);
  }
  assert.ok(state.isDone(0) && state.allStarve);
  assert.equal(add(2), OFFER.DUPLICATE);
  assert.equal(add(7), OFFER.BEHIND_LAST);
});

test('indices go up to the largest', () => {
  const state = reassembly({ devices: 1, slots: 2, queuedMax: 1 });
  assert.ok(state.offer(0, 0xfffffffe, true) >= 0);
  assert.equal(state.offer(0, 0xfffffffe, true), OFFER.DUPLICATE);
  assert.ok(state.offer(0, 0, false) >= 0);
});

test('10,000 interleavings of device state', async () => {
  const { rows } = await smoke(stateBuffers, 20261126, 100);
  const stuck = (order: string) =>
    rows.filter((row) => row['order'] === order).reduce((sum, row) => sum + Number(row['stuck']), 0);
  assert.equal(stuck('sender'), 0);
  assert.ok(stuck('any') > 0, 'small pools and impossible orders were among them');
  assert.deepEqual(new Set(rows.map((row) => row['bound'])), new Set(['one buffer', 'some', 'unlimited']));
});
