import test from 'node:test';
import { fuzzVfioUser } from '../../fuzz/vfio-user.fuzz.ts';

test('hostile bytes end in messages or a WireError (a short run; longer ones: test/fuzz/vfio-user.fuzz.ts)', () => {
  fuzzVfioUser(20261121, 150);
});
