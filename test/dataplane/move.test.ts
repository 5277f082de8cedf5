/** Memory through channels: whatever is added in whatever batches ends up the same, under both disciplines, with every method. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import fc from 'fast-check';
import { setBlocking } from '../../src/native/index.ts';
import { MULTIFD_INITIAL_BYTES, multifdHeaderBytes, multifdPagesMax } from '../../src/wire/multifd/index.ts';
import { receiveAll, tcpPair } from '../native/sockets.ts';
import {
  addAll,
  bytesOf,
  openSockets,
  PAGE,
  type Pair,
  pairs,
  ramOf,
  receiver,
  sameRam,
  sender,
  writePage,
} from './support.ts';

interface Store {
  readonly block: number;
  readonly page: number;
  readonly version: number;
}

const PAGES = [300, 7, 64];

/** Rounds of stores; a round is sent in sections, each ended by a point where the channels meet, or in one. */
const rounds = fc.array(
  fc.array(
    fc.record({
      block: fc.integer({ min: 0, max: 2 }),
      page: fc.nat(),
      version: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 1000 })),
    }),
    { minLength: 1, maxLength: 400 },
  ),
  { minLength: 2, maxLength: 6 },
);

for (const { channels, compression, sections, findZeroPages, seed } of [
  { channels: 1, compression: 'none', sections: 1, findZeroPages: true, seed: 1 },
  { channels: 3, compression: 'none', sections: 1, findZeroPages: false, seed: 2 },
  { channels: 2, compression: 'none', sections: 4, findZeroPages: true, seed: 3 },
  { channels: 2, compression: 'zlib', sections: 1, findZeroPages: true, seed: 4 },
  { channels: 2, compression: 'zstd', sections: 3, findZeroPages: true, seed: 5 },
] as const) {
  const how = `${channels} channels, ${compression}, ${sections} sections a round, zero pages ${findZeroPages ? 'found' : 'sent'}`;
  test(`random rounds: ${how}`, async (t) => {
    const links = pairs(channels);
    const from = ramOf(...PAGES);
    const to = ramOf(...PAGES);
    const uuid = new Uint8Array(16);
    const source = await sender(
      t,
      links.map(([fd]) => fd),
      from,
      { compression, findZeroPages, uuid },
    );
    const destination = await receiver(
      t,
      links.map(([, fd]) => fd),
      to,
      { compression },
    );
    let sentPages = 0;
    const oneRun = async (list: readonly (readonly Store[])[]) => {
      for (const stores of list) {
        const dirty = new Map<string, Store>();
        for (const store of stores) {
          const page = store.page % PAGES[store.block]!;
          writePage(from, store.block, page, store.version);
          dirty.set(`${store.block}/${page}`, { ...store, page });
        }
        const pages = [...dirty.values()];
        const share = Math.ceil(pages.length / sections);
        for (let section = 0; section < sections; section++) {
          for (const { block, page } of pages.slice(section * share, (section + 1) * share)) {
            await addAll(source, block, [page]);
          }
          // The two ends of a point on the main stream; the receiver comes first, now and then.
          await (section % 2 === 0
            ? Promise.all([source.sync(), destination.meet()])
            : Promise.all([destination.meet(), source.sync()]));
          assert.equal(source.unsentPages, 0);
        }
        sentPages += pages.length;
        assert.ok(sameRam(from, to));
      }
    };
    await fc.assert(fc.asyncProperty(rounds, oneRun), { seed, numRuns: 5 });
    await source.end();
    await destination.finish();
    destination.close();
    for (const { normalPages, zeroPages } of [source.totals, destination.totals]) {
      assert.equal(normalPages + zeroPages, sentPages);
      assert.equal(zeroPages > 0, findZeroPages);
    }
    assert.equal(source.totals.bytes, destination.totals.bytes);
    assert.equal(source.totals.packets, destination.totals.packets);
  });
}

test('a large memory over TCP: full queues, whole packets, one piece a batch', async (t) => {
  const before = openSockets();
  const links = await Promise.all([tcpPair(), tcpPair()]);
  const pages = 8192;
  const from = ramOf(pages);
  const to = ramOf(pages);
  for (let page = 0; page < pages; page++) writePage(from, 0, page, page + 1);
  for (const [, fd] of links) setBlocking(fd, true);
  const source = await sender(
    t,
    links.map(([fd]) => fd),
    from,
  );
  const destination = await receiver(
    t,
    links.map(([, fd]) => fd),
    to,
  );
  await addAll(
    source,
    0,
    Array.from({ length: pages }, (_, page) => page),
  );
  await Promise.all([source.sync(), destination.meet()]);
  assert.ok(sameRam(from, to));
  const { bytes, packets, normalPages } = destination.totals;
  assert.deepEqual([normalPages, packets], [pages, pages / 128 + 2]);
  assert.equal(bytes, 2 * 64 + packets * 1344 + pages * PAGE);
  await source.end();
  await destination.finish();
  destination.close();
  assert.equal(openSockets(), before);
});

test('zero pages are written only where there is something else', async (t) => {
  const [link] = pairs(1);
  const from = ramOf(4);
  const to = ramOf(4);
  writePage(to, 0, 2, 5);
  const source = await sender(t, [link![0]], from);
  const destination = await receiver(t, [link![1]], to);
  await addAll(source, 0, [0, 1, 2, 3]);
  await Promise.all([source.sync(), destination.meet()]);
  assert.ok(bytesOf(to, 0).every((byte) => byte === 0));
  assert.deepEqual([destination.totals.zeroPages, destination.totals.normalPages], [4, 0]);
  assert.equal(destination.totals.bytes, 64 + 2 * 1344);
});

test('pages that look zero at a glance are not, whichever of a run they are', async (t) => {
  const pages = 64;
  const [link] = pairs(1);
  const from = ramOf(pages);
  const to = ramOf(pages);
  const marked = [0, 3, 4, 17, 40, 41, 42, 63];
  // Neither the first nor the last byte, nor the one in the middle that is looked at.
  for (const page of marked) bytesOf(from, 0)[page * PAGE + 100] = 1;
  for (const page of [5, 18, 39, 43]) bytesOf(to, 0)[page * PAGE + 100] = 2;
  const source = await sender(t, [link![0]], from);
  const destination = await receiver(t, [link![1]], to);
  await addAll(
    source,
    0,
    Array.from({ length: pages }, (_, page) => page),
  );
  await Promise.all([source.sync(), destination.meet()]);
  assert.ok(sameRam(from, to));
  assert.deepEqual(
    [destination.totals.normalPages, destination.totals.zeroPages],
    [marked.length, pages - marked.length],
  );
});

test('threads have the names of QEMU and can be found', async (t) => {
  const links = pairs(2);
  const ram = ramOf(1);
  const source = await sender(
    t,
    links.map(([fd]) => fd),
    ram,
  );
  const destination = await receiver(
    t,
    links.map(([, fd]) => fd),
    ramOf(1),
  );
  const names = [...source.threads, ...destination.threads].map(({ name, threadId }) => {
    assert.equal(readFileSync(`/proc/self/task/${threadId}/comm`, 'latin1').trim(), name.slice(0, 15));
    return name;
  });
  assert.deepEqual(names, ['mig/src/send_0', 'mig/src/send_1', 'mig/dst/recv_0', 'mig/dst/recv_1']);
});

test('who waits for room is told, though somebody else fills the queue before he looks', {
  timeout: 30_000,
}, async (t) => {
  const pages = 4096;
  const batchPages = multifdPagesMax(PAGE);
  const ram = ramOf(pages);
  bytesOf(ram, 0).fill(1);
  const [[from, to]] = pairs(1) as [Pair];
  const channels = await sender(t, [from], ram);
  receiveAll(to, MULTIFD_INITIAL_BYTES);
  let added = 0;
  const fill = () => {
    while (channels.add(0, added % pages)) added++;
  };
  const drain = () => {
    const batches = (added - channels.totals.normalPages) / batchPages;
    receiveAll(to, batches * (multifdHeaderBytes(PAGE) + batchPages * PAGE));
    while (channels.totals.normalPages < added);
  };
  fill();
  const told = channels.room();
  // The thread says that there is room; it is taken before we come to hear it, and nobody says so again unless he is asked to.
  drain();
  fill();
  await new Promise((resolve) => setTimeout(resolve, 0));
  await new Promise((resolve) => setImmediate(resolve));
  drain();
  await told;
});
