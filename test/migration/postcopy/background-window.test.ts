/** How much of the background is let out, over links that are reckoned: each is kept busy, and nothing queues for long. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { BackgroundWindow } from '../../../src/migration/postcopy/source/background-window.ts';

const KIB = 1024;
const GIGABIT = 125_000;

interface Link {
  readonly name: string;
  readonly bytesPerMs: number;
  readonly roundTripMs: number;
}

const LINKS: readonly Link[] = [
  { name: '1 Gbit/s next door', bytesPerMs: GIGABIT, roundTripMs: 0.1 },
  { name: '10 Gbit/s next door', bytesPerMs: 10 * GIGABIT, roundTripMs: 0.2 },
  { name: '100 Mbit/s', bytesPerMs: GIGABIT / 10, roundTripMs: 1 },
  { name: '1 Gbit/s, 20 ms away', bytesPerMs: GIGABIT, roundTripMs: 20 },
  { name: '10 Gbit/s, 50 ms away', bytesPerMs: 10 * GIGABIT, roundTripMs: 50 },
];

/** Whether and when somebody can act who has to wait for his turn: from `atMs` on at the earliest. */
type Turns = (atMs: number) => number;
const ALWAYS: Turns = (atMs) => atMs;

/** Turns and the times between them, as long as chance has it, `runMs` and `pauseMs` in the mean. To be asked in order. */
function turnsOf(runMs: number, pauseMs: number): Turns {
  let state = 7;
  const some = (meanMs: number) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return -Math.log(1 - (state >>> 8) / 2 ** 24) * meanMs;
  };
  let from = 0;
  let to = some(runMs);
  return (atMs) => {
    while (to < atMs) {
      from = to + some(pauseMs);
      to = from + some(runMs);
    }
    return Math.max(atMs, from);
  };
}

/** Sends as much as the window lets out for `ms`, in pieces of a step; the destination places and answers when it has its turn. */
function play({ bytesPerMs, roundTripMs }: Link, ms: number, { unitBytes = 0, turns = ALWAYS } = {}) {
  const window = new BackgroundWindow();
  const answers: number[] = [];
  /** When the link has carried what was sent so far, and when it was placed. */
  let carriedMs = 0;
  let placedMs = 0;
  let offset = 0;
  let nowMs = 0;
  let worstMs = 0;
  let sumMs = 0;
  let pieces = 0;
  window.begin(0, 0);
  while (nowMs < ms) {
    for (; answers.length > 0 && answers[0]! <= nowMs; answers.shift()) window.answered(nowMs);
    if (window.delayMs(offset, unitBytes, nowMs) > 0) {
      nowMs = answers[0]!;
      continue;
    }
    const bytes = Math.max(window.step, unitBytes);
    offset += bytes;
    carriedMs = Math.max(carriedMs, nowMs) + bytes / bytesPerMs;
    placedMs = Math.max(placedMs, turns(carriedMs + roundTripMs / 2));
    worstMs = Math.max(worstMs, placedMs - nowMs);
    sumMs += placedMs - nowMs;
    pieces++;
    assert.ok(window.isMarkDue(offset));
    window.mark(offset, nowMs);
    answers.push(placedMs + roundTripMs / 2);
  }
  return { share: offset / ms / bytesPerMs, worstMs, meanMs: sumMs / pieces };
}

for (const link of LINKS) {
  test(`${link.name}: the link is kept busy, nothing queues for long`, () => {
    const { roundTripMs, bytesPerMs } = link;
    const { share, worstMs } = play(link, 2000 + 100 * roundTripMs);
    assert.ok(share > 0.85, `${(share * 100).toFixed(0)} % of the link are used`);
    // What the smallest window is worth on this link, or else the round trip and as much again.
    const limitMs = Math.max((3 * 64 * KIB) / bytesPerMs, 2 * roundTripMs + 2);
    assert.ok(worstMs <= roundTripMs + limitMs, `a piece takes ${worstMs.toFixed(1)} ms`);
  });
}

test('pages that cannot be marked inside keep the link busy too: one is sent while the one before is answered', () => {
  const { share, worstMs } = play(LINKS[0]!, 2000, { unitBytes: 2048 * KIB });
  assert.ok(share > 0.95, `${(share * 100).toFixed(0)} % of the link are used`);
  assert.ok(worstMs < 60, `a page takes ${worstMs.toFixed(1)} ms`);
});

for (const [runMs, pauseMs, shareMin, meanMax] of [
  [0.5, 0.2, 0.95, 1.5],
  [2, 2, 0.6, 8],
  [1, 5, 0.28, 15],
  [2, 40, 0.05, 100],
] as const) {
  test(`a busy destination, ${runMs} ms of ${runMs + pauseMs}: the link is used, and still nothing queues for long`, () => {
    const { share, meanMs } = play(LINKS[0]!, 4000, { turns: turnsOf(runMs, pauseMs) });
    assert.ok(share > shareMin, `${(share * 100).toFixed(0)} % of the link are used`);
    assert.ok(meanMs < meanMax, `a piece takes ${meanMs.toFixed(1)} ms`);
  });
}

test('a destination that answers nothing is waited for once, and not asked for ever', () => {
  const window = new BackgroundWindow();
  window.begin(1000, 0);
  let offset = 1000;
  let marks = 0;
  while (window.delayMs(offset, 0, 1) === 0) {
    offset += window.step;
    if (window.isMarkDue(offset)) window.mark(offset, 0);
    marks++;
  }
  assert.equal(window.onTheWay(offset) >= 64 * KIB, true);
  assert.equal(marks, Math.ceil((64 * KIB) / window.step));
  assert.ok(window.delayMs(offset, 0, 1) < 1000);
  // It has had its time.
  assert.equal(window.delayMs(offset, 0, 1000), 0);
  for (let more = 0; more < 1000; more++) {
    offset += window.step;
    if (!window.isMarkDue(offset)) continue;
    window.mark(offset, 1000);
    marks++;
  }
  assert.equal(marks, 64);
});

test('answers that nobody has asked for change nothing', () => {
  const window = new BackgroundWindow();
  window.begin(0, 0);
  window.answered(5);
  assert.equal(window.onTheWay(77), 77);
  assert.equal(window.size, 64 * KIB);
});
