import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { Blocktime, LATENCY_BUCKETS } from '../../../src/migration/postcopy/destination/blocktime.ts';

const MS = 1e6;

test('two vCPUs: each its own time, the overlap only while both wait', () => {
  const blocktime = new Blocktime(2);
  blocktime.begin(0, 7, 10 * MS);
  blocktime.begin(1, 8, 13 * MS);
  blocktime.end(7, 20 * MS);
  blocktime.begin(0, 9, 22 * MS);
  blocktime.end(8, 30 * MS);
  blocktime.end(9, 31 * MS);
  const { figures } = blocktime;
  assert.equal(figures['postcopy-blocktime'], 20 - 13 + (30 - 22));
  assert.deepEqual(figures['postcopy-vcpu-blocktime'], [10 + 9, 17]);
  assert.equal(figures['postcopy-latency'], ((10 + 9 + 17) * MS) / 3);
  assert.deepEqual(figures['postcopy-vcpu-latency'], [9.5 * MS, 17 * MS]);
  assert.equal(figures['postcopy-non-vcpu-latency'], 0);
});

test('several vCPUs and somebody else wait for one page, which counts for each of them', () => {
  const blocktime = new Blocktime(3);
  blocktime.begin(undefined, 1, 0);
  blocktime.begin(0, 1, 1 * MS);
  blocktime.begin(2, 1, 2 * MS);
  blocktime.begin(2, 5, 3 * MS);
  blocktime.end(5, 4 * MS);
  blocktime.end(1, 5 * MS);
  blocktime.end(1, 9 * MS);
  const { figures } = blocktime;
  assert.deepEqual(figures['postcopy-vcpu-blocktime'], [4, 0, 3]);
  assert.equal(figures['postcopy-blocktime'], 0, 'vCPU 1 never waited');
  assert.equal(figures['postcopy-non-vcpu-latency'], 5 * MS);
  assert.equal(figures['postcopy-latency'], (4 + 3 + 5) * (MS / 3));
});

test('buckets: powers of two of a microsecond; what is shorter and what is longer lies at the ends', () => {
  const cases: [ns: number, bucket: number][] = [
    [0, 0],
    [999, 0],
    [1_000, 0],
    [1_999, 0],
    [2_000, 1],
    [255_999, 7],
    [256_000, 8],
    [511_999, 8],
    [2 ** 23 * 1000, 23],
    [2 ** 30 * 1000, 23],
  ];
  for (const [ns, bucket] of cases) {
    const blocktime = new Blocktime(1);
    blocktime.begin(0, 1, 5);
    blocktime.end(1, 5 + ns);
    const distribution = blocktime.figures['postcopy-latency-dist'];
    assert.equal(distribution.length, LATENCY_BUCKETS);
    assert.equal(distribution.indexOf(1), bucket, `${ns} ns`);
  }
});

test('a clock that seems to go back takes no time, and no vCPU at all blocks nobody', () => {
  const blocktime = new Blocktime(1);
  blocktime.begin(0, 1, 100);
  blocktime.end(1, 90);
  assert.deepEqual(blocktime.figures['postcopy-vcpu-blocktime'], [0]);
  const none = new Blocktime(0);
  none.begin(undefined, 1, 0);
  none.end(1, 50 * MS);
  assert.equal(none.figures['postcopy-blocktime'], 0);
  assert.equal(none.figures['postcopy-non-vcpu-latency'], 50 * MS);
});

test('against a model that looks at every moment', () => {
  const event = fc.record({
    after: fc.integer({ min: 0, max: 3 }),
    vcpu: fc.nat(3),
    page: fc.nat(3),
    begins: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 3 }), fc.array(event, { maxLength: 60 }), (vcpus, events) => {
      const blocktime = new Blocktime(vcpus);
      const waits: (number | undefined)[] = Array(vcpus).fill(undefined);
      const blocked: number[] = Array(vcpus).fill(0);
      let overlap = 0;
      let now = 0;
      for (const { after, vcpu, page, begins } of events) {
        for (let tick = 0; tick < after; tick++) {
          for (let one = 0; one < vcpus; one++) if (waits[one] !== undefined) blocked[one]!++;
          if (waits.every((one) => one !== undefined)) overlap++;
        }
        now += after;
        if (begins) {
          const who = vcpu % vcpus;
          blocktime.begin(who, page, now * MS);
          waits[who] ??= page;
        } else {
          blocktime.end(page, now * MS);
          for (let one = 0; one < vcpus; one++) if (waits[one] === page) waits[one] = undefined;
        }
      }
      // What still waits has not been counted yet.
      for (let page = 0; page < 4; page++) blocktime.end(page, now * MS);
      const { figures } = blocktime;
      assert.deepEqual(figures['postcopy-vcpu-blocktime'], blocked);
      assert.equal(figures['postcopy-blocktime'], overlap);
    }),
  );
});
