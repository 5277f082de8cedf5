import assert from 'node:assert/strict';
import { test } from 'node:test';
import { prepareThreads, type ReadyThread, takeThread } from '../../src/dataplane/ready-thread.ts';

test('threads that were prepared are taken once each, then new ones are made; all end when dismissed', async () => {
  prepareThreads('copy', 2);
  prepareThreads('copy', 2);
  const threads = [takeThread('copy'), takeThread('copy'), takeThread('copy')];
  assert.equal(new Set(threads).size, 3);
  await dismissed(threads);
});

test('threads that are wanted no more are not handed out', async () => {
  prepareThreads('send', 1);
  const kept = takeThread('send');
  prepareThreads('send', 1);
  prepareThreads('send', 0);
  const later = takeThread('send');
  assert.notEqual(later, kept);
  await dismissed([kept, later]);
});

async function dismissed(threads: readonly ReadyThread[]): Promise<void> {
  for (const thread of threads) {
    // By itself it keeps no process alive, not even this one.
    thread.worker.ref();
    thread.dismiss();
  }
  for (const thread of threads) assert.equal(await thread.exited, undefined);
}
