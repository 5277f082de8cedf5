import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { clearBit, clearRange, countBits, newBitmap, setBit, setRange, testBit } from '../../src/base/index.ts';

const BITS = 200;

test('ranges are set and cleared bit by bit, and no other bit is touched', () => {
  const ranges = fc.array(
    fc.record({
      first: fc.integer({ min: 0, max: BITS - 1 }),
      count: fc.oneof(fc.integer({ min: 0, max: 70 }), fc.constantFrom(32, 64, 96)),
      value: fc.boolean(),
    }),
    { maxLength: 20 },
  );
  fc.assert(
    fc.property(ranges, (list) => {
      const map = newBitmap(BITS);
      const plain = newBitmap(BITS);
      for (const { first, count, value } of list) {
        const length = Math.min(count, BITS - first);
        let changed = 0;
        for (let bit = first; bit < first + length; bit++) {
          if (testBit(plain, bit) !== value) changed++;
          (value ? setBit : clearBit)(plain, bit);
        }
        assert.equal((value ? setRange : clearRange)(map, first, length), changed);
        assert.deepEqual(map, plain);
      }
      assert.ok(countBits(map) <= BITS);
    }),
  );
});
