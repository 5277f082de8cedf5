import test from 'node:test';
import { fuzzWire } from '../fuzz/wire.fuzz.ts';

test('hostile bytes end in a parse or a WireError (a short run; longer ones: test/fuzz/wire.fuzz.ts)', () => {
  fuzzWire(20261121, 250);
});
