/** RAM that lies in a checkpoint: channels fill one, channels read from one, and what is wrong with the file is said with its place. */
import assert from 'node:assert/strict';
import { closeSync, openSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import test, { type TestContext } from 'node:test';
import fc from 'fast-check';
import { newSharedBitmap, setBit, testBit } from '../../src/base/index.ts';
import type { ChannelError, PageCompression } from '../../src/dataplane/index.ts';
import { CheckpointReader, type FileRam } from '../../src/machine/index.ts';
import { allPages, filling, finish, freshPath, PAGES, rounds, type Store, storeRound } from './checkpoint-ram.ts';
import { addAll, bytesOf, PAGE, pairs, ramOf, receiver, sameRam, sender, writePage } from './support.ts';

const cases: readonly { channels: number; compression: PageCompression; findZeroPages: boolean; directIo: boolean }[] =
  [
    { channels: 1, compression: 'none', findZeroPages: true, directIo: false },
    { channels: 3, compression: 'none', findZeroPages: false, directIo: false },
    { channels: 2, compression: 'zstd', findZeroPages: true, directIo: false },
    { channels: 2, compression: 'zlib', findZeroPages: false, directIo: true },
    { channels: 3, compression: 'none', findZeroPages: true, directIo: true },
  ];

for (const { channels, compression, findZeroPages, directIo } of cases) {
  const zeros = findZeroPages ? 'found' : 'sent';
  const cache = directIo ? 'past the page cache' : 'through it';
  test(`memory to file to memory: ${channels} channels, ${compression}, zero pages ${zeros}, ${cache}`, async (t) => {
    const oneRun = async (list: readonly (readonly Store[])[]) => {
      const path = freshPath();
      const from = ramOf(...PAGES);
      const { writer, sink } = await filling(path, directIo);
      const links = pairs(channels);
      const more = { compression, findZeroPages };
      const source = await sender(
        t,
        links.map(([fd]) => fd),
        from,
        more,
      );
      const destination = await receiver(
        t,
        links.map(([, fd]) => fd),
        sink.share(),
        { compression },
      );
      for (const [index, stores] of list.entries()) {
        for (const [block, pages] of storeRound(from, stores, index === 0).entries())
          await addAll(source, block, pages);
        await Promise.all([source.sync(), destination.meet()]);
      }
      await source.end();
      await destination.finish();
      destination.close();
      await finish(writer);

      const reader = await CheckpointReader.open(path, { directIo });
      const back = ramOf(...PAGES);
      const again = pairs(channels);
      const out = await sender(
        t,
        again.map(([fd]) => fd),
        reader.sharedRam(),
        more,
      );
      const into = await receiver(
        t,
        again.map(([, fd]) => fd),
        back,
        { compression },
      );
      // Its descriptors are the machine's to close whenever it likes: the channels have their own.
      await reader.close();
      for (const block of PAGES.keys()) await addAll(out, block, allPages(block));
      await Promise.all([out.sync(), into.meet()]);
      await out.end();
      await into.finish();
      into.close();
      assert.ok(sameRam(from, back));
      if (findZeroPages) {
        for (const block of PAGES.keys()) {
          for (const page of allPages(block)) {
            const isZero = bytesOf(from, block)
              .subarray(page * PAGE, (page + 1) * PAGE)
              .every((byte) => byte === 0);
            assert.equal(testBit(reader.pageMap(block), page), !isZero, `bit of block ${block} page ${page}`);
          }
        }
      } else assert.equal(out.totals.zeroPages, 0);
      rmSync(path);
    };
    await fc.assert(fc.asyncProperty(rounds, oneRun), { seed: 20261124, numRuns: 4 });
  });
}

test('pages of the main stream and of channels take turns', async (t) => {
  const path = freshPath();
  const { writer, sink } = await filling(path);
  const [link] = pairs(1);
  const from = ramOf(...PAGES);
  const source = await sender(t, [link![0]], from);
  const destination = await receiver(t, [link![1]], sink.share());
  const round = async (version: number) => {
    writePage(from, 0, 5, version);
    await addAll(source, 0, [5]);
    await Promise.all([source.sync(), destination.meet()]);
  };
  const page = Buffer.alloc(PAGE);
  await round(1);
  sink.zero(0, 5 * PAGE);
  sink.read(0, 5 * PAGE, page);
  assert.ok(page.every((byte) => byte === 0));
  await round(2);
  sink.page(0, 5 * PAGE, Buffer.alloc(PAGE, 7), 0);
  await round(3);
  sink.read(0, 5 * PAGE, page);
  assert.ok(page.equals(bytesOf(from, 0).subarray(5 * PAGE, 6 * PAGE)));
  sink.page(0, 5 * PAGE, Buffer.alloc(PAGE, 9), 0);
  await source.end();
  await destination.finish();
  destination.close();
  await finish(writer);
  const reader = await CheckpointReader.open(path);
  const window = await reader.window(0, 5);
  const at = (5 - window.firstPage) * PAGE;
  assert.ok(window.bytes.subarray(at, at + PAGE).every((byte) => byte === 9));
  await reader.close();
});

function fileRam(fd: number, path: string): FileRam {
  const bitmap = newSharedBitmap(64);
  for (let page = 0; page < 64; page++) setBit(bitmap, page);
  const block = { idstr: 'block0', usedLength: 64 * PAGE, pagesOffset: 2 * PAGE, bitmap: bitmap.buffer };
  const touched = new SharedArrayBuffer(4);
  return { kind: 'file', path, pageSize: PAGE, fd, direct: false, blocks: [block], touched };
}

function opened(t: TestContext, size: number, flags: string): FileRam {
  const path = freshPath();
  writeFileSync(path, Buffer.alloc(size, 1));
  const fd = openSync(path, flags);
  t.after(() => closeSync(fd));
  return fileRam(fd, path);
}

test('a file that is too short fails the sending channel, with the place in the file', async (t) => {
  const ram = opened(t, 66 * PAGE, 'r');
  truncateSync(ram.path, 40 * PAGE + 100);
  const links = pairs(2);
  const failures: ChannelError[] = [];
  const source = await sender(
    t,
    links.map(([fd]) => fd),
    ram,
    { failed: (error) => failures.push(error) },
  );
  await addAll(
    source,
    0,
    Array.from({ length: 64 }, (_, page) => page),
  );
  await assert.rejects(source.sync(), (error: ChannelError) => {
    const { fault } = error;
    assert.ok(fault.code === 'DATAPLANE_FILE');
    const { path, position } = { path: ram.path, position: 40 * PAGE + 100 };
    assert.deepEqual(fault, {
      code: 'DATAPLANE_FILE',
      channel: 0,
      offset: 64,
      path,
      operation: 'read',
      position,
      errno: 'EOF',
    });
    assert.match(error.message, /multifd 0: offset 64: .*: cannot read pages at 163940 \(EOF\)/);
    return true;
  });
  await source.closed();
  assert.equal(failures.length, 1);
  for (const [, fd] of links) closeSync(fd);
});

test('a file that cannot be written fails the receiving channel, and its bits stay clear', async (t) => {
  const ram = opened(t, 66 * PAGE, 'r');
  new Uint32Array(ram.blocks[0]!.bitmap).fill(0);
  const [link] = pairs(1);
  const from = ramOf(64);
  for (let page = 0; page < 64; page++) writePage(from, 0, page, 1);
  const source = await sender(t, [link![0]], from);
  const destination = await receiver(t, [link![1]], ram);
  const met = destination.meet();
  await addAll(
    source,
    0,
    Array.from({ length: 64 }, (_, page) => page),
  );
  const synced = source.sync().catch(() => {});
  await assert.rejects(met, ({ fault }: ChannelError) => {
    assert.ok(fault.code === 'DATAPLANE_FILE');
    assert.deepEqual([fault.operation, fault.position, fault.errno], ['write', 2 * PAGE, 'EBADF']);
    return true;
  });
  source.cancel();
  await synced;
  assert.ok(new Uint32Array(ram.blocks[0]!.bitmap).every((word) => word === 0));
});
