import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import test from 'node:test';
import { FerryError } from '../../src/base/index.ts';
import { FIRST_EXTRA_FD, QemuProcess, QmpClient, REQUIRED_PEERS } from '../../src/qemu/index.ts';
import { peerOrSkip } from '../support/peers.ts';

const MACHINE = ['-nodefaults', '-machine', 'q35', '-accel', 'tcg', '-m', '32'];

for (const name of REQUIRED_PEERS) {
  const { peer, skip } = await peerOrSkip(name);

  test(`QEMU ${name}: starts, answers two QMP clients, has a socket for fd:, and leaves nothing`, {
    skip,
  }, async () => {
    assert(peer !== undefined);
    const args = [...MACHINE, '-incoming', `fd:${FIRST_EXTRA_FD}`];
    const qemu = await QemuProcess.start({ peer, extraSockets: 1, args });
    try {
      const second = await QmpClient.connect(qemu.qmpPath);
      const version = await second.execute('query-version');
      assert.equal(`${version.qemu.major}.${version.qemu.minor}.${version.qemu.micro}`, peer.version);
      assert.deepEqual((await qemu.qmp.execute('query-status')).status, 'inmigrate');
      qemu.sockets[0]?.write(Buffer.alloc(64));
      await qemu.exited;
      assert.match(qemu.stderr, /Not a migration stream/i);
    } finally {
      await qemu.stop();
    }
    assert.equal(qemu.exit?.code, 1);
    assert.equal(existsSync(qemu.folder), false);
    assert.throws(() => process.kill(qemu.pid, 0), { code: 'ESRCH' });
  });

  test(`QEMU ${name}: its death rejects what waits, with its last words`, { skip }, async () => {
    assert(peer !== undefined);
    const died = (error: unknown) => error instanceof FerryError && error.code === 'QEMU_DIED';
    const qemu = await QemuProcess.start({ peer, args: MACHINE });
    const waiting = assert.rejects(qemu.qmp.waitForEvent('SHUTDOWN'), died);
    const console = assert.rejects(
      qemu.serial.waitFor(() => undefined, 'a prompt', 60_000),
      died,
    );
    qemu.kill();
    await Promise.all([waiting, console]);
    await qemu.stop();
    await assert.rejects(QemuProcess.start({ peer, args: ['-machine', 'nonsense'] }), (error) => {
      assert(error instanceof Error && error.cause instanceof FerryError && died(error.cause));
      assert.match(error.cause.message, /unsupported machine type/);
      return true;
    });
  });
}
