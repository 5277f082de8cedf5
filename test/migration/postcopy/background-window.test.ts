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

interface Answer {
  readonly atMs: number;
}

/** Sends as much as the window lets out for `ms`, in pieces of a step. */
function play({ bytesPerMs, roundTripMs }: Link, ms: number, unitBytes = 0) {
  const window = new BackgroundWindow();
  const answers: Answer[] = [];
  /** When the link has carried what was sent so far. */
  let carriedMs = 0;
  let offset = 0;
  let nowMs = 0;
  let worstMs = 0;
  window.begin(0, 0);
  while (nowMs < ms) {
    for (; answers.length > 0 && answers[0]!.atMs <= nowMs; answers.shift()) window.answered(nowMs);
    if (window.delayMs(offset, unitBytes, nowMs) > 0) {
      nowMs = answers[0]!.atMs;
      continue;
    }
    const bytes = Math.max(window.step, unitBytes);
    offset += bytes;
    carriedMs = Math.max(carriedMs, nowMs) + bytes / bytesPerMs;
    // A page of the piece is there when the piece is.
    worstMs = Math.max(worstMs, carriedMs + roundTripMs / 2 - nowMs);
    assert.ok(window.isMarkDue(offset));
    window.mark(offset, nowMs);
    answers.push({ atMs: carriedMs + roundTripMs });
  }
  return { share: offset / ms / bytesPerMs, worstMs, window, offset };
}

for (const link of LINKS) {
  test(`${link.name}: the link is kept busy, nothing queues for long`, () => {
    const { roundTripMs, bytesPerMs } = link;
    const { share, worstMs } = play(link, 2000 + 100 * roundTripMs);
    assert.ok(share > 0.85, `${(share * 100).toFixed(0)} % of the link are used`);
    // What the smallest window is worth on this link, or else the round trip and as much again.
    const limitMs = Math.max((2 * 64 * KIB) / bytesPerMs, 2 * roundTripMs + 2);
    assert.ok(worstMs <= roundTripMs + limitMs, `a piece takes ${worstMs.toFixed(1)} ms`);
  });
}

test('pages that cannot be marked inside keep the link busy too: one is sent while the one before is answered', () => {
  const { share, worstMs } = play(LINKS[0]!, 2000, 2048 * KIB);
  assert.ok(share > 0.95, `${(share * 100).toFixed(0)} % of the link are used`);
  assert.ok(worstMs < 60, `a page takes ${worstMs.toFixed(1)} ms`);
});

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
