import assert from 'node:assert/strict';
import test from 'node:test';
import { WakeUp } from '../../src/base/index.ts';

test('whoever waits goes on at the next wake-up, once', async () => {
  const news = new WakeUp();
  let resumed = 0;
  const first = news.next().then(() => resumed++);
  news.wake();
  news.wake();
  await first;
  assert.equal(resumed, 1);
});

test('a wake-up is not kept for who comes later', async () => {
  const news = new WakeUp();
  news.wake();
  let resumed = false;
  const next = news.next().then(() => {
    resumed = true;
  });
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(resumed, false);
  news.wake();
  await next;
});

test('after its time it goes on without', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const news = new WakeUp();
  const next = news.next(50);
  t.mock.timers.tick(50);
  await next;
});
