/** Channels without a wire: memory into a checkpoint and back, by any number of threads; the file does not show how many. */
import assert from 'node:assert/strict';
import { readFileSync, rmSync } from 'node:fs';
import test, { type TestContext } from 'node:test';
import fc from 'fast-check';
import { CopyChannels } from '../../src/dataplane/index.ts';
import { CheckpointReader, type SharedRam } from '../../src/machine/index.ts';
import { allPages, filling, finish, freshPath, PAGES, rounds, type Store, storeRound } from './checkpoint-ram.ts';
import { addAll, ignore, PAGE, ramOf, sameRam, writePage } from './support.ts';

async function copier(t: TestContext, count: number, from: SharedRam, to: SharedRam): Promise<CopyChannels> {
  const channels = await CopyChannels.start({ count, from, to, failed: ignore });
  t.after(async () => {
    channels.cancel();
    await channels.closed();
  });
  return channels;
}

async function copyAll(t: TestContext, count: number, from: SharedRam, to: SharedRam): Promise<void> {
  const channels = await copier(t, count, from, to);
  for (const block of PAGES.keys()) await addAll(channels, block, allPages(block));
  await channels.sync();
  await channels.end();
  const { normalPages, zeroPages, bytes } = channels.totals;
  assert.equal(
    normalPages + zeroPages,
    PAGES.reduce((sum, pages) => sum + pages, 0),
  );
  assert.equal(bytes, normalPages * PAGE);
}

for (const { count, storeDirect, loadDirect } of [
  { count: 1, storeDirect: false, loadDirect: false },
  { count: 3, storeDirect: false, loadDirect: true },
  { count: 2, storeDirect: true, loadDirect: false },
]) {
  const how = (direct: boolean) => (direct ? 'past the page cache' : 'through it');
  test(`${count} threads write ${how(storeDirect)}, read ${how(loadDirect)}`, async (t) => {
    const oneRun = async (list: readonly (readonly Store[])[]) => {
      const path = freshPath();
      const from = ramOf(...PAGES);
      const { writer, sink } = await filling(path, storeDirect);
      const channels = await copier(t, count, from, sink.share());
      for (const [index, stores] of list.entries()) {
        for (const [block, pages] of storeRound(from, stores, index === 0).entries()) {
          await addAll(channels, block, pages);
        }
        await channels.sync();
      }
      await channels.end();
      await finish(writer);

      // Others wrote the same machine: one channel, and a file from a file.
      const again = freshPath();
      const single = await filling(again);
      await copyAll(t, 1, from, single.sink.share());
      await finish(single.writer);
      const copied = freshPath();
      const third = await filling(copied, storeDirect);
      const reader = await CheckpointReader.open(path, { directIo: loadDirect });
      await copyAll(t, count, reader.sharedRam(), third.sink.share());
      await finish(third.writer);
      assert.ok(readFileSync(again).equals(readFileSync(copied)));

      const back = ramOf(...PAGES);
      // What was there before goes.
      for (const page of [3, 4, 299]) writePage(back, 0, page, 999);
      await copyAll(t, count, reader.sharedRam(), back);
      assert.ok(sameRam(from, back));
      await reader.close();
      for (const name of [path, again, copied]) rmSync(name);
    };
    await fc.assert(fc.asyncProperty(rounds, oneRun), { seed: 20261125, numRuns: 4 });
  });
}

test('the threads have the names of QEMU', async (t) => {
  const { writer, sink } = await filling(freshPath());
  const file = sink.share();
  const store = await copier(t, 2, ramOf(...PAGES), file);
  const load = await copier(t, 1, file, ramOf(...PAGES));
  const names = [...store.threads, ...load.threads].map(({ name }) => name);
  assert.deepEqual(names, ['mig/src/send_0', 'mig/src/send_1', 'mig/dst/recv_0']);
  await writer.discard();
});
