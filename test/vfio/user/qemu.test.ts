/** QEMU as the client of our server (vfio-user-pci, from 10.1 on; it does not migrate such devices): what its guest sees and does. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import test from 'node:test';
import { FIRST_EXTRA_FD, peersDirectory, QemuProcess } from '../../../src/qemu/index.ts';
import { linuxGuestMissing } from '../../support/guests/guest.ts';
import { peerOrSkip } from '../../support/peers.ts';
import { Qtest } from '../../support/qtest.ts';
import { DOORBELL_BAR, RAM_BAR, RamDevice } from './ram-device.ts';
import { withServer } from './support.ts';

const { peer, skip } = await peerOrSkip('11.1');
const linuxSkip = skip || (linuxGuestMissing() ?? false);

const SLOT = 4;
const COMMAND = 4;
const MEMORY_AND_BUS_MASTER = 6;
const BOOT_MS = 90_000;

const bar = (index: number) => 0x10 + 4 * index;

/** Runs with a QEMU whose guest has the device of the server at `socket`. */
async function withQemu(
  socket: string,
  args: readonly string[],
  work: (qemu: QemuProcess) => Promise<void>,
): Promise<void> {
  const device = { driver: 'vfio-user-pci', addr: String(SLOT), socket: { type: 'unix', path: socket } };
  const qemu = await QemuProcess.start({
    peer: peer!,
    args: ['-nodefaults', '-machine', 'q35', '-m', '128M', ...args, '-device', JSON.stringify(device)],
    extraSockets: 1,
  });
  try {
    await work(qemu);
  } finally {
    await qemu.stop();
  }
}

const QTEST = [
  '-accel',
  'qtest',
  '-chardev',
  `socket,id=qt,fd=${FIRST_EXTRA_FD}`,
  '-qtest',
  'chardev:qt',
  '-qtest-log',
  'none',
];

/** Waits for the first copy as a driver does, by reading the device. */
async function copied(guest: Qtest, device: RamDevice): Promise<void> {
  const endMs = performance.now() + 10_000;
  while ((await guest.read(0xe100_0018, 1))[0] !== 1) {
    assert.ok(performance.now() < endMs, `no copy: ${device.journal.join(', ')}`);
  }
}

test('QEMU: configuration, regions and DMA of our device, by what a driver would do', { skip }, async () => {
  // QEMU serves no DMA while it waits for an answer to a command of its own.
  const device = new RamDevice({ background: true });
  await withServer(device, async ({ socket, events }) => {
    await withQemu(socket, QTEST, async (qemu) => {
      const guest = new Qtest(qemu.sockets[0]!);
      assert.equal(await guest.config(SLOT, 0), 0x5678_1234);
      await guest.setConfig(SLOT, bar(RAM_BAR), 0xffff_ffff);
      assert.equal(await guest.config(SLOT, bar(RAM_BAR)), 0xffff_0000, 'its size shows');
      await guest.setConfig(SLOT, bar(RAM_BAR), 0xe000_0000);
      await guest.setConfig(SLOT, bar(DOORBELL_BAR), 0xe100_0000);
      await guest.setConfig(SLOT, COMMAND, MEMORY_AND_BUS_MASTER);

      const text = Buffer.from('written by the guest into the memory of the device');
      await guest.write(0xe000_0100, text);
      device.memory.write('answered by the device', 0x2000);
      assert.equal((await guest.read(0xe000_2000, 22)).toString(), 'answered by the device');
      // QEMU's writes are posted: only what is read after them says that they are done.
      assert.ok(device.memory.subarray(0x100).subarray(0, text.length).equals(text));

      const bytes = Buffer.from(Uint8Array.from({ length: 9000 }, (_, i) => (i * 13) & 0xff));
      await guest.write(0x10_0000, bytes);
      for (const [register, value] of [
        [0, 0x10_0000],
        [8, 0x20_0123],
        [16, bytes.length],
      ] as const) {
        await guest.writeq(0xe100_0000 + register, value);
      }
      await copied(guest, device);
      assert.ok((await guest.read(0x20_0123, bytes.length)).equals(bytes), 'the device has copied guest memory');

      device.journal.length = 0;
      await qemu.qmp.execute('system_reset');
      assert.equal(await guest.config(SLOT, 0), 0x5678_1234);
      assert.ok(device.journal.includes('reset'), 'a reset of the machine is one of the device');
    });
    const [greeting] = events;
    assert.ok(
      greeting?.kind === 'client' && greeting.version === '0.0' && greeting.capabilities.writeMultiple === true,
    );
  });
});

test('QEMU: another one finds the device as the first has left it', { skip }, async () => {
  const device = new RamDevice();
  await withServer(device, async ({ socket, events }) => {
    for (let round = 0; round < 3; round++) {
      await withQemu(socket, QTEST, async (qemu) => {
        const guest = new Qtest(qemu.sockets[0]!);
        assert.equal(await guest.config(SLOT, 0), 0x5678_1234);
      });
    }
    assert.equal(events.filter((event) => event.kind === 'client').length, 3);
  });
});

test('QEMU: a Linux guest finds the device and its regions', { skip: linuxSkip }, async () => {
  const device = new RamDevice();
  const kernel = join(peersDirectory(), 'linux-guest');
  const linux = ['-accel', 'tcg', '-kernel', join(kernel, 'vmlinuz'), '-initrd', join(kernel, 'initrd.gz')];
  await withServer(device, async ({ socket }) =>
    withQemu(socket, [...linux, '-append', 'console=ttyS0 panic=-1'], async ({ serial }) => {
      await serial.waitFor((text) => /FILLED/.exec(text) ?? undefined, 'the guest at its work', BOOT_MS);
      assert.match(serial.text, /0000:00:04\.0: \[1234:5678\]/);
      assert.match(serial.text, /0000:00:04\.0: (?:BAR 2|reg 0x18:) \[mem .*\]/);
    }),
  );
});
