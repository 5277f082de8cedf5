/** When to switch over, and how hard to throttle: the decisions as tables, and one guest that only moves because it is throttled. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { AutoConverge, expectedDowntime, sumOf, type ThrottleSettings } from '../../src/migration/convergence.ts';
import { assertCompleted } from '../support/completed.ts';
import { memoryPair } from '../support/memory-channel.ts';
import { move, testSettings } from '../support/move.ts';
import { workloadPair } from '../support/workload-pair.ts';

const MIB = 1024 * 1024;
const DEFAULTS: ThrottleSettings = { initial: 20, increment: 10, max: 99, tailslow: false, triggerThreshold: 50 };

test('the downtime to expect: bytes by bandwidth, and for devices what stopping and loading them takes', () => {
  const any = Number.POSITIVE_INFINITY;
  const cases = [
    // [measured bytes/ms, avail-switchover-bandwidth bytes/s, bytes, of one device, stop ms, load ms, load bytes/ms, downtime ms]
    [1000, 0, 300_000, 0, 0, 0, any, 300],
    [1000, 2_000_000, 600_000, 0, 0, 0, any, 300],
    [0, 0, 1, 0, 0, 0, any, any],
    [0, 0, 0, 0, 0, 0, any, 0],
    [0, 1_000_000, 500_000, 0, 0, 0, any, 500],
    [1000, 0, 300_000, 200_000, 4, 70, any, 374],
    // State is loaded while it arrives: the slower of both counts.
    [1000, 0, 300_000, 200_000, 4, 70, 1000, 374],
    [1000, 0, 300_000, 200_000, 4, 70, 500, 474],
    [1000, 0, 0, 0, 4, 1480, 500, 1484],
  ] as const;
  for (const [bandwidth, availSwitchoverBandwidth, bytes, deviceBytes, stopMs, ms, bytesPerMs, expected] of cases) {
    const cost = { stopMs, load: { ms, bytesPerMs } };
    const plan = expectedDowntime({ bytes, deviceBytes, bandwidth, availSwitchoverBandwidth, cost });
    assert.equal(sumOf(plan), expected);
  }
});

test('auto-converge waits for two rounds that dirty too much, begins with initial, grows by increment, ends at max', () => {
  const converge = new AutoConverge();
  const tooMuch = () => converge.roundEnded(60, 100, DEFAULTS);
  assert.deepEqual([tooMuch(), tooMuch()], [0, 20]);
  assert.deepEqual([tooMuch(), tooMuch(), tooMuch(), tooMuch()], [20, 30, 30, 40]);
  assert.equal(converge.roundEnded(50, 100, DEFAULTS), 40, 'half of what was sent is not too much');
  for (let i = 0; i < 40; i++) tooMuch();
  assert.equal(converge.percentage, 99);
});

test('tailslow takes no more than is needed to reach the goal', () => {
  const settings = { ...DEFAULTS, initial: 50, increment: 40, tailslow: true };
  const converge = new AutoConverge();
  for (let i = 0; i < 2; i++) converge.roundEnded(100, 100, settings);
  assert.equal(converge.percentage, 50);
  // 10 % too much in the 50 % that run: 50 - 50 / 1.1 more, in whole per cents.
  for (let i = 0; i < 2; i++) converge.roundEnded(55, 100, settings);
  assert.equal(converge.percentage, 55);
});

test('a guest that dirties faster than the link carries converges once it is throttled', async (t) => {
  const { source, destination } = await workloadPair(t, {
    ram: 16 * MIB,
    vcpus: 1,
    dirtyRate: 60e6,
    pattern: 'uniform',
  });
  await source.resume();
  const settings = testSettings((s) => {
    s.setCapabilities([{ capability: 'auto-converge', state: true }]);
    s.setParameters({
      'max-bandwidth': 25e6,
      'downtime-limit': 100,
      'cpu-throttle-initial': 40,
      'cpu-throttle-increment': 30,
    });
  });
  let throttle = 0;
  const moved = move({
    source,
    destination,
    channels: memoryPair(),
    settings,
    outgoing: {
      pass: () => {
        throttle = Math.max(throttle, moved.outgoing.info()['cpu-throttle-percentage'] ?? 0);
      },
    },
  });
  const { source: result } = await moved.ended;
  assertCompleted(result);
  assert.ok(throttle >= 40, `throttled by ${throttle} % at most`);
  await destination.stop('paused');
  assert.deepEqual((await destination.verify()).bad, []);
});
