import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { Pacer } from '../../src/transport/pacer.ts';

test('no span of time carries more than the rate, a burst and one piece; none much less', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1000, max: 1e9 }),
      fc.array(fc.tuple(fc.integer({ min: 1, max: 500_000 }), fc.double({ min: 0, max: 3, noNaN: true })), {
        minLength: 1,
        maxLength: 200,
      }),
      (rate, pieces) => {
        const pacer = new Pacer();
        pacer.rate = rate;
        let now = 1000;
        const sent: { at: number; bytes: number }[] = [];
        for (const [bytes, idleMs] of pieces) {
          now += idleMs;
          for (let delay = pacer.delayMs(now); delay > 0; delay = pacer.delayMs(now)) now += Math.max(delay, 0.001);
          pacer.spend(bytes);
          sent.push({ at: now, bytes });
        }
        const largest = Math.max(...pieces.map(([bytes]) => bytes));
        for (let from = 0; from < sent.length; from += 7) {
          let bytes = 0;
          for (let to = from; to < sent.length; to++) {
            bytes += sent[to]!.bytes;
            const span = (sent[to]!.at - sent[from]!.at) / 1000;
            assert.ok(bytes <= rate * (span + 0.01) + largest + 1, `${bytes} bytes in ${span} s at ${rate}`);
          }
        }
        const idle = pieces.reduce((sum, [, ms]) => sum + ms, 0);
        const total = sent.reduce((sum, { bytes }) => sum + bytes, 0);
        assert.ok(now - 1000 <= idle + (total / rate) * 1000 + 1, 'no wait without need');
      },
    ),
    { seed: 20261121, numRuns: 200 },
  );
});
