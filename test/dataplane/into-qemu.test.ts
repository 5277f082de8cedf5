/** Our channels into real QEMUs: a captured main stream, and beside it the memory that belongs to it, sent by our threads in a way of their own. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import type { PageCompression } from '../../src/dataplane/index.ts';
import { takeDescriptor } from '../../src/native/index.ts';
import { QemuProcess } from '../../src/qemu/index.ts';
import { type MultifdCapture, multifdCaptures } from '../support/multifd-captures.ts';
import { peerOrSkip } from '../support/peers.ts';
import { replay } from './replay.ts';
import { addAll, PAGE, sender } from './support.ts';

const UUID = Buffer.from('5c7e0f1a8d2b4c3e9f60718293a4b5c6', 'hex');

/** A QEMU that waits for the capture's machine on a unix socket, its RAM in a file. */
async function waiting(t: TestContext, version: string, capture: MultifdCapture, peer: QemuProcess['peer']) {
  const machine = version === '7.2' ? 'pc-i440fx-7.2' : `pc-q35-${version}`;
  const qemu = await QemuProcess.start({
    peer,
    args: async (folder) => {
      await writeFile(join(folder, 'firmware.bin'), Buffer.alloc(64 * 1024));
      const file = `memory-backend-file,id=mem0,size=16M,share=on,mem-path=${join(folder, 'memory')}`;
      return [
        ...['-nodefaults', '-accel', 'tcg', '-S', '-bios', join(folder, 'firmware.bin'), '-object', file],
        ...['-machine', `${machine},memory-backend=mem0`, '-m', '16', '-uuid', '5c7e0f1a-8d2b-4c3e-9f60-718293a4b5c6'],
        ...['-incoming', 'defer'],
      ];
    },
  });
  t.after(() => qemu.stop());
  await qemu.qmp.execute('migrate-set-capabilities', { capabilities: [{ capability: 'multifd', state: true }] });
  await qemu.qmp.executeAny('migrate-set-parameters', {
    'multifd-channels': capture.channels.length,
    'multifd-compression': capture.method,
  });
  const path = join(qemu.folder, 'incoming');
  await qemu.qmp.execute('migrate-incoming', { uri: `unix:${path}` });
  return { qemu, path };
}

async function connected(path: string): Promise<Socket> {
  const socket = connect(path);
  socket.pause();
  await once(socket, 'connect');
  return socket;
}

for (const capture of multifdCaptures()) {
  const version = capture.name.split('-')[1]!;
  const { peer, skip } = await peerOrSkip(version);
  test(`${capture.method} into QEMU ${version}`, { skip }, async (t) => {
    const { ram, points } = await replay(t, capture);
    const { qemu, path } = await waiting(t, version, capture, peer!);
    // 7.2 takes the first connection for the main channel, whatever it says.
    const main = await connected(path);
    t.after(() => main.destroy());
    main.on('error', () => {});
    main.write(capture.main);
    const sockets: Socket[] = [];
    for (const _ of capture.channels) sockets.push(await connected(path));
    const source = await sender(t, sockets.map(takeDescriptor), ram, {
      uuid: UUID,
      compression: capture.method as PageCompression,
      findZeroPages: version !== '7.2',
    });
    // In front of the last point: the main stream of 7.2 has the zero pages of earlier rounds.
    for (let point = 1; point < points; point++) await source.sync();
    for (const [block, { usedLength }] of ram.blocks.entries()) {
      const pages = Array.from({ length: usedLength / PAGE }, (_, page) => page);
      // Backwards, so that packets and runs are other than QEMU's.
      await addAll(source, block, pages.reverse());
    }
    await source.sync();
    await qemu.qmp.waitForMigration(['completed'], { timeoutMs: 60_000 });
    await source.end();
    const memory = readFileSync(join(qemu.folder, 'memory'));
    assert.equal(createHash('sha256').update(memory).digest('hex'), capture.memory);
  });
}
