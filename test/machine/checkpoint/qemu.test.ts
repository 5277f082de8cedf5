/** Checkpoints and real QEMUs: what we write they load, what they write we give back, and the guest's own check passes. */
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { testBit } from '../../../src/base/index.ts';
import { CheckpointReader, CheckpointWriter } from '../../../src/machine/index.ts';
import { IncomingMigration, OutgoingMigration } from '../../../src/migration/index.ts';
import { type QemuPeer, QemuProcess } from '../../../src/qemu/index.ts';
import { connect, formatAddress, listen, parseAddress } from '../../../src/transport/index.ts';
import { bootProgram } from '../../support/guests/boot-sector.ts';
import { bootGuest, type Guest } from '../../support/guests/guest.ts';
import { testSettings } from '../../support/move.ts';
import { peerOrSkip } from '../../support/peers.ts';

const MACHINE = 'pc-i440fx-7.2';
const SOURCES = ['7.2', '10.0', '11.1'];
const LOADERS = ['10.0', '11.1'];

interface Lab {
  readonly folder: string;
  readonly guest: Guest;
  start(peer: QemuPeer, incoming?: boolean, args?: readonly string[]): Promise<QemuProcess>;
}

/** A folder and processes that are gone when `body` is done. */
async function inLab(body: (lab: Lab) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'vmferry-checkpoint-'));
  const guest = bootGuest(bootProgram({ order: 'random', pageCount: 8192, spin: 500 }));
  const processes: QemuProcess[] = [];
  const start = async (peer: QemuPeer, incoming = false, args: readonly string[] = []) => {
    const qemu = await QemuProcess.start({
      peer,
      args: async (own) => [
        ...['-nodefaults', '-machine', MACHINE, '-accel', 'tcg', '-m', guest.memory],
        ...(await guest.args(own, folder)),
        ...args,
        ...(incoming ? ['-incoming', 'defer'] : []),
      ],
    });
    processes.push(qemu);
    if (!incoming) await guest.ready(qemu);
    return qemu;
  };
  try {
    await body({ folder, guest, start });
  } finally {
    await Promise.all(processes.map((qemu) => qemu.stop()));
    await rm(folder, { recursive: true });
  }
}

/** QEMU's guest into a checkpoint of ours; it was running, so it will run where it is loaded. */
async function save(qemu: QemuProcess, file: string): Promise<void> {
  const listener = await listen(parseAddress('tcp:127.0.0.1:0'));
  const incoming = new IncomingMigration({
    machine: new CheckpointWriter(file),
    settings: testSettings(),
    takesAnyMachine: true,
    listener,
  });
  const run = incoming.run();
  await capability(qemu, 'return-path');
  await qemu.qmp.execute('migrate', { uri: formatAddress(listener.address) });
  const result = await run;
  listener.close();
  if (result.error !== undefined) throw result.error;
  await settled(qemu, 'completed');
}

/** A checkpoint into a waiting QEMU. */
async function restore(file: string, qemu: QemuProcess, offset = 0): Promise<void> {
  const reader = await CheckpointReader.open(file, { offset });
  const path = join(qemu.folder, 'incoming.sock');
  await qemu.qmp.execute('migrate-incoming', { uri: `unix:${path}` });
  const outgoing = new OutgoingMigration({
    machine: reader,
    settings: testSettings(),
    connect: (signal) => connect(parseAddress(`unix:${path}`), { signal }),
    returnPath: () => true,
  });
  const result = await outgoing.run();
  await reader.close();
  if (result.status !== 'completed') throw result.error;
  await settled(qemu, 'completed');
}

/** QEMU loads the file itself. */
async function load(qemu: QemuProcess, uri: string): Promise<void> {
  await capability(qemu, 'mapped-ram');
  await qemu.qmp.execute('migrate-incoming', { uri });
  await settled(qemu, 'completed');
}

function capability(qemu: QemuProcess, name: 'mapped-ram' | 'return-path' | 'x-ignore-shared'): Promise<unknown> {
  return qemu.qmp.execute('migrate-set-capabilities', { capabilities: [{ capability: name, state: true }] });
}

/** Waits for the end of the process's migration. */
async function settled(qemu: QemuProcess, wanted: string): Promise<void> {
  for (const deadline = Date.now() + 30_000; ; ) {
    const { status, 'error-desc': why } = (await qemu.qmp.execute('query-migrate')) as Record<string, unknown>;
    if (status === wanted) return;
    assert.ok(status !== 'failed' && Date.now() < deadline, `${qemu.label}: migration is ${status}: ${why}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Where this machine does not show RAM to its processor: VGA and ROMs, in 4 KiB pages. */
const HIDDEN = { from: 0xa0, to: 0x100 };

for (const from of SOURCES) {
  const { peer, skip } = await peerOrSkip(from);
  test(`a checkpoint is what the stopped QEMU ${from} holds, page by page`, { skip }, () =>
    inLab(async ({ folder, start }) => {
      assert(peer !== undefined);
      const file = join(folder, 'checkpoint');
      const qemu = await start(peer);
      await save(qemu, file);
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
          await capability(before, 'mapped-ram');
          await before.qmp.execute('migrate', { uri: `file:${file}${offset === 0 ? '' : `,offset=${offset}`}` });
          await settled(before, 'completed');
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
