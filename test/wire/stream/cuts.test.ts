/** However the bytes arrive, the same is understood; wherever they end, it is said so. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { mappedRamSample, pattern, postcopySample, precopySample } from '../samples.ts';
import { faultIn, feed, fixture, type Memory, originOf, PAGE, withoutBatches } from '../streams.ts';

const SAMPLES = { precopy: precopySample(), postcopy: postcopySample(), 'mapped-ram': mappedRamSample() };
const ZEROS = Buffer.alloc(64);
const CAPTURED = ['pc-7.2', 'q35-devices-10.0', 'q35-own-11.1', 'xbzrle-11.1', 'return-path-10.0'];

function* every(step: number, length: number): Generator<number> {
  for (let at = step; at < length; at += step) yield at;
}

for (const [name, bytes] of Object.entries(SAMPLES)) {
  const whole = feed(bytes);

  test(`${name}: parses whole`, () => {
    assert.equal(whole.error, undefined);
    assert.equal(whole.events.at(-1)!.offset + whole.events.at(-1)!.length, bytes.length);
  });

  test(`${name}: the same events when it comes in pieces of n bytes`, () => {
    for (const step of [1, 2, 3, 5, 7, 13, 64, 1000, 4096, 4104, 9000]) {
      if (bytes.length / step > 100_000) continue;
      const parsed = feed(bytes, { cuts: every(step, bytes.length) });
      assert.equal(parsed.error, undefined, `pieces of ${step}`);
      assert.deepEqual(withoutBatches(parsed.events), withoutBatches(whole.events), `pieces of ${step}`);
      assert.deepEqual((parsed.memory as Memory).pages, (whole.memory as Memory).pages, `pieces of ${step}`);
    }
  });

  test(`${name}: the same events when it is cut in two at any byte`, () => {
    const expected = withoutBatches(whole.events);
    for (const cut of cutsOf(bytes)) {
      const parsed = feed(bytes, { cuts: [cut] });
      assert.equal(parsed.error, undefined, `cut at ${cut}`);
      assert.deepEqual(withoutBatches(parsed.events), expected, `cut at ${cut}`);
    }
  });

  test(`${name}: an end anywhere is WIRE_TRUNCATED at that offset, after the events before it`, () => {
    for (const end of cutsOf(bytes)) {
      // A footer and a zero byte: that is how a stream without description ends (suppress-vmdesc).
      if (end >= 6 && bytes[end - 6] === 0x7e && bytes.readUInt32BE(end - 5) >= 0x20 && bytes[end - 1] === 0) continue;
      const parsed = feed(bytes.subarray(0, end));
      const fault = faultIn(parsed);
      assert.equal(fault.code, 'WIRE_TRUNCATED', `end at ${end}`);
      assert.equal(fault.offset, end);
      const seen = withoutBatches(parsed.events);
      assert.deepEqual(seen, withoutBatches(whole.events).slice(0, seen.length), `end at ${end}`);
      assert.ok(seen.length < withoutBatches(whole.events).length);
    }
  });
}

/** Every byte, but of the content of pages and the regions of mapped-ram one in many. */
function cutsOf(bytes: Buffer): number[] {
  const data = pattern(PAGE, 7);
  const step = bytes.length > 1_000_000 ? 5 : 1;
  const cuts: number[] = [];
  let inPages = 0;
  for (let at = 1; at < bytes.length; at++) {
    if (bytes.subarray(at, at + 16).equals(data.subarray(0, 16))) inPages = at + PAGE - 16;
    if (step > 1 && bytes.subarray(at, at + 64).equals(ZEROS)) inPages = at + 48;
    if (at % (at >= inPages ? step : 509 * step * step) === 0) cuts.push(at);
  }
  return cuts;
}

for (const name of CAPTURED) {
  test(`${name}: the same events in random pieces`, () => {
    const bytes = fixture(name);
    const whole = feed(bytes);
    assert.equal(whole.error, undefined);
    const piece = fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 70_000 }));
    fc.assert(
      fc.property(fc.infiniteStream(piece), (sizes) => {
        const parsed = feed(bytes, { cuts: running(sizes) });
        assert.equal(parsed.error, undefined);
        assert.deepEqual(withoutBatches(parsed.events), withoutBatches(whole.events));
        assert.deepEqual((parsed.memory as Memory).pages, (whole.memory as Memory).pages);
      }),
      { numRuns: 3, seed: 20261121 },
    );

    function* running(sizes: Iterable<number>): Generator<number> {
      let at = 0;
      for (const size of sizes) {
        at += size;
        if (at >= bytes.length) return;
        yield at;
      }
    }
  });
}

test('a mapped-ram file of QEMU with an offset, in pieces', () => {
  const name = 'mapped-ram-offset-11.1';
  const origin = originOf(name);
  const bytes = fixture(name).subarray(origin);
  const whole = feed(bytes, { origin });
  assert.equal(whole.error, undefined);
  const parsed = feed(bytes, { origin, cuts: every(777, bytes.length) });
  assert.deepEqual(withoutBatches(parsed.events), withoutBatches(whole.events));
});
