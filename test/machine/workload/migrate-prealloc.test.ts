import assert from 'node:assert/strict';
import test from 'node:test';
import { createWorkload } from '../../../src/machine/index.ts';
import { memoryPair } from '../../support/memory-channel.ts';
import { move } from '../../support/move.ts';

test('prealloc: memory is there before the migration, is used for it, and is given back when it fails', async (t) => {
  const options = { ram: 16 * 1024 * 1024, vcpus: 1, dirtyRate: 1e6 };
  const source = await createWorkload(options);
  const destination = await createWorkload({ ...options, incoming: true, prealloc: true });
  t.after(async () => {
    await source.dispose();
    await destination.dispose();
  });
  assert.ok(destination.dirtyLog !== undefined, 'no hardware yet');
  await source.resume();
  const cut = move({ source, destination, channels: memoryPair({ cutAfter: { aToB: 1_000_000, how: 'reset' } }) });
  assert.equal((await cut.ended).source.status, 'failed');
  assert.equal(destination.dirtyLog, undefined, 'memory of a failed migration was kept');
  await destination.prealloc();
  const before = destination.dirtyLog;
  assert.equal((await move({ source, destination, channels: memoryPair() }).ended).source.status, 'completed');
  assert.equal(destination.dirtyLog, before, 'the memory taken in advance was not used');
  await destination.stop('paused');
  assert.deepEqual((await destination.verify()).bad, []);
});
