/** Checkpoints and real QEMUs: what we write they load, what they write we give back, and the guest's own check passes. */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'node:test';
import { testBit } from '../../../src/base/index.ts';
import { CheckpointReader } from '../../../src/machine/index.ts';
import { peerOrSkip } from '../../support/peers.ts';
import { type Channels, capability, inLab, load, restore, save, store } from './lab.ts';

const SOURCES = ['7.2', '10.0', '11.1'];
const LOADERS = ['10.0', '11.1'];

/** Where this machine does not show RAM to its processor: VGA and ROMs, in 4 KiB pages. */
const HIDDEN = { from: 0xa0, to: 0x100 };

for (const [from, channels] of SOURCES.flatMap(
  (from) =>
    [
      [from, undefined],
      [from, { count: 3, directIo: false }],
    ] as const,
)) {
  const { peer, skip } = await peerOrSkip(from);
  const how = channels === undefined ? 'over one channel' : `over ${channels.count}`;
  test(`a checkpoint is what the stopped QEMU ${from} holds, page by page: ${how}`, { skip }, () =>
    inLab(async ({ folder, start }) => {
      assert(peer !== undefined);
      const file = join(folder, 'checkpoint');
      const qemu = await start(peer);
      // QEMU 7.2 may lose a store of a guest that runs (conformance/matrix.ts); what is sent of a stopped one must be whole.
      if (from === '7.2') await qemu.qmp.execute('stop');
      await save(qemu, file, channels);
      const reader = await CheckpointReader.open(file);
      const ram = reader.ram.find(({ idstr }) => idstr === 'pc.ram');
      assert(ram !== undefined);
      const dump = join(folder, 'dump');
      await qemu.qmp.execute('pmemsave', { val: 0, size: ram.usedLength, filename: dump });
      const memory = await readFile(dump);
      const map = reader.pageMap(ram.index);
      const zero = Buffer.alloc(4096);
      const stale: string[] = [];
      for (let page = 0; page < ram.usedLength / 4096; page++) {
        if (page >= HIDDEN.from && page < HIDDEN.to) continue;
        let held: Buffer = zero;
        if (testBit(map, page)) {
          const { bytes, firstPage } = await reader.window(ram.index, page);
          held = bytes.subarray((page - firstPage) * 4096, (page - firstPage + 1) * 4096);
        }
        if (!held.equals(memory.subarray(page * 4096, (page + 1) * 4096))) stale.push(`0x${page.toString(16)}`);
      }
      await reader.close();
      assert.deepEqual(stale, []);
    }),
  );
}

for (const from of SOURCES) {
  const source = await peerOrSkip(from);
  for (const to of LOADERS) {
    const target = await peerOrSkip(to);
    const skip = source.skip || target.skip;
    test(`QEMU ${to} loads the checkpoint of a guest of QEMU ${from}`, { skip }, () =>
      inLab(async ({ folder, guest, start }) => {
        assert(source.peer !== undefined && target.peer !== undefined);
        const file = join(folder, 'checkpoint');
        const before = await start(source.peer);
        await save(before, file);
        const after = await start(target.peer, true);
        await load(after, `file:${file}`);
        await guest.check([before, after]);
      }),
    );
  }
  test(`QEMU ${from}: its guest comes back from a checkpoint`, { skip: source.skip }, () =>
    inLab(async ({ folder, guest, start }) => {
      assert(source.peer !== undefined);
      const file = join(folder, 'checkpoint');
      const before = await start(source.peer);
      await save(before, file);
      const after = await start(source.peer, true);
      await restore(file, after);
      await guest.check([before, after]);
    }),
  );
}

for (const name of LOADERS) {
  const { peer, skip } = await peerOrSkip(name);
  for (const offset of [0, 0x5000]) {
    for (const stopped of [true, false]) {
      const how = `${stopped ? 'stopped' : 'live'}, offset ${offset}`;
      test(`a mapped-ram file of QEMU ${name} is sent back: ${how}`, { skip }, () =>
        inLab(async ({ folder, guest, start }) => {
          assert(peer !== undefined);
          const file = join(folder, 'theirs');
          if (offset > 0) await writeFile(file, Buffer.alloc(offset, 0xaa));
          const before = await start(peer);
          if (stopped) await before.qmp.execute('stop');
          await store(before, `file:${file}${offset === 0 ? '' : `,offset=${offset}`}`);
          const after = await start(peer, true);
          await restore(file, after, offset);
          if (stopped) await after.qmp.execute('cont');
          await guest.check([before, after]);
        }),
      );
    }
  }
}

for (const name of ['11.1']) {
  const { peer, skip } = await peerOrSkip(name);
  test(`shared RAM stays where it is: QEMU ${name} loads a checkpoint without it`, { skip }, () =>
    inLab(async ({ folder, guest, start }) => {
      assert(peer !== undefined);
      const file = join(folder, 'checkpoint');
      const memory = `memory-backend-file,id=ram,share=on,mem-path=${join(folder, 'ram')},size=${guest.memory}`;
      const args = ['-object', memory, '-machine', 'memory-backend=ram'];
      const before = await start(peer, false, args);
      await capability(before, 'x-ignore-shared');
      await save(before, file);
      const reader = await CheckpointReader.open(file);
      await reader.close();
      assert.deepEqual(
        reader.ram.filter(({ shared }) => shared).map(({ idstr }) => idstr),
        ['ram'],
      );
      await before.qmp.execute('quit');
      await before.exited;
      const after = await start(peer, true, args);
      await capability(after, 'x-ignore-shared');
      await load(after, `file:${file}`);
      await guest.check([before, after]);
    }),
  );
}

/** Written and read by different numbers of threads: the file does not show how many. */
const PARALLEL: readonly {
  readonly from: string;
  readonly to: string;
  readonly write: Channels;
  readonly read: Channels | undefined;
}[] = [
  { from: '7.2', to: '11.1', write: { count: 3, directIo: false }, read: { count: 2, directIo: false } },
  { from: '10.0', to: '10.0', write: { count: 1, directIo: true }, read: { count: 4, directIo: true } },
  { from: '11.1', to: '10.0', write: { count: 4, directIo: false }, read: undefined },
  { from: '11.1', to: '11.1', write: { count: 2, directIo: true }, read: { count: 1, directIo: false } },
];

for (const { from, to, write, read } of PARALLEL) {
  const source = await peerOrSkip(from);
  const target = await peerOrSkip(to);
  const skip = source.skip || target.skip;
  const how = `${write.count} channels of QEMU ${from}, ${read === undefined ? 'one' : read.count} of QEMU ${to}`;
  test(`a checkpoint filled over channels: ${how}`, { skip }, () =>
    inLab(async ({ folder, guest, start }) => {
      assert(source.peer !== undefined && target.peer !== undefined);
      const file = join(folder, 'checkpoint');
      const before = await start(source.peer);
      await save(before, file, write);
      const after = await start(target.peer, true);
      await load(after, `file:${file}`, read);
      await guest.check([before, after]);
    }),
  );
}

for (const { from, to, write, read } of PARALLEL.filter(({ from }) => LOADERS.includes(from))) {
  const source = await peerOrSkip(from);
  for (const name of [to, '7.2']) {
    const target = await peerOrSkip(name);
    const skip = source.skip || target.skip;
    const how = `${write.count} threads of QEMU ${from}, ${read === undefined ? 'one channel' : `${read.count} channels`} into QEMU ${name}`;
    test(`a mapped-ram file sent over channels: ${how}`, { skip }, () =>
      inLab(async ({ folder, guest, start }) => {
        assert(source.peer !== undefined && target.peer !== undefined);
        const file = join(folder, 'theirs');
        const before = await start(source.peer);
        await store(before, `file:${file}`, write);
        const after = await start(target.peer, true);
        await restore(file, after, 0, read);
        await guest.check([before, after]);
      }),
    );
  }
}
