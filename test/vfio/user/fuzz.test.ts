import test from 'node:test';
import { fuzzVfioUserServer } from '../../fuzz/vfio-user-server.fuzz.ts';

test('hostile clients do no harm to a server (a short run; longer ones: test/fuzz/vfio-user-server.fuzz.ts)', () =>
  fuzzVfioUserServer(20261121, 60));
