import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
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

/** Ends in the midst of what its threads do at their beginning. */
const ENDS_EARLY = `
  const { prepareThreads } = await import(process.argv[1]);
  prepareThreads('send', 4);
  setTimeout(() => process.exit(0), Number(process.argv[2]));
`;

test('a process that ends while its threads load ends well', async () => {
  const module = new URL('../../src/dataplane/ready-thread.js', import.meta.url).href;
  for (const ms of [50, 100, 200, 400]) {
    const child = spawn(process.execPath, ['--input-type=module', '-e', ENDS_EARLY, module, String(ms)], {
      stdio: ['ignore', 'ignore', 'pipe'],
      timeout: 60_000,
    });
    let said = '';
    child.stderr.on('data', (chunk) => {
      said += chunk;
    });
    assert.deepEqual(await once(child, 'close'), [0, null], `after ${ms} ms: ${said}`);
  }
});
