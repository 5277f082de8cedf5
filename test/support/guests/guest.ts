import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { peersDirectory, type QemuProcess } from '../../../src/qemu/index.ts';
import { checkLetters, readCounters, stateOf } from './boot-check.ts';
import { type BootProgram, bootImage } from './boot-sector.ts';
import { readTicks, ticked } from './linux-ticks.ts';

/** Something to run in a machine, that can tell whether it is still itself. */
export interface Guest {
  /** RAM of the machine, as -m takes it. */
  readonly memory: string;
  /** Its part of a command line. `folder` is the process's own, `shared` that of all processes it will live in. */
  args(folder: string, shared: string): Promise<string[]>;
  /** Resolves when a machine just started has got it to its work, or (a boot program that sleeps) to its sleep. */
  ready(qemu: QemuProcess): Promise<void>;
  /** Proves that it works on, unharmed, in the last of the processes it has lived in; throws what is wrong. It is left running. */
  check(lives: readonly QemuProcess[]): Promise<void>;
}

/** How long a guest on a busy machine may take to boot, and for a few rounds of its work, ms. */
const BOOT_TIMEOUT_MS = 180_000;
const WORK_TIMEOUT_MS = 60_000;

export function bootGuest(program: BootProgram, memory = '128M'): Guest {
  const passes = (text: string) => text.replace(/[^A-Z]/g, '').length;
  return {
    memory,
    async args(folder) {
      const image = join(folder, 'boot.img');
      await writeFile(image, bootImage(program));
      return ['-drive', `if=none,id=boot,format=raw,file=${image}`, '-device', 'ide-hd,drive=boot'];
    },
    async ready({ serial, qmp }) {
      const asleep = qmp.waitForEvent('SUSPEND', { timeoutMs: BOOT_TIMEOUT_MS });
      asleep.catch(() => {});
      await serial.waitFor((text) => passes(text) >= 2 || undefined, 'two passes', BOOT_TIMEOUT_MS);
      if (program.sleeps && (await qmp.execute('query-status')).status !== 'suspended') await asleep;
    },
    async check(lives) {
      const qemu = last(lives);
      const before = passes(qemu.serial.text);
      await qemu.serial.waitFor((text) => passes(text) >= before + 3 || undefined, 'three passes', WORK_TIMEOUT_MS);
      await qemu.qmp.execute('stop');
      const state = stateOf(program, await readCounters(qemu.qmp, program, qemu.folder));
      checkLetters(consoles(lives), state);
      await qemu.qmp.execute('cont');
    },
  };
}

export interface LinuxOptions {
  readonly cpus: number;
  /** MiB that the guest fills, checks and rewrites. */
  readonly workMb: number;
  /** MiB of RAM; default enough for the work. */
  readonly ramMb?: number;
  readonly devices: readonly ('virtio-net' | 'virtio-blk' | 'e1000' | 'usb' | 'numa')[];
}

/** Why there is no Linux guest here; undefined if there is. */
export function linuxGuestMissing(): string | undefined {
  if (existsSync(join(peersDirectory(), 'linux-guest', 'vmlinuz'))) return undefined;
  const reason = 'no Linux guest here (node scripts/setup.mjs --peers builds it)';
  if (process.env['CI'] === 'true') throw new Error(reason);
  return reason;
}

export function linuxGuest({ cpus, workMb, ramMb, devices }: LinuxOptions): Guest {
  const kernel = join(peersDirectory(), 'linux-guest');
  return {
    memory: `${ramMb ?? (devices.includes('numa') ? 256 : 192)}M`,
    async args(_folder, shared) {
      const disk = join(shared, 'disk.img');
      if (devices.includes('virtio-blk') && !existsSync(disk)) await writeFile(disk, Buffer.alloc(4 * 1024 * 1024));
      const args: Record<LinuxOptions['devices'][number], string[]> = {
        'virtio-net': ['-netdev', 'user,id=net0,restrict=on', '-device', 'virtio-net-pci,netdev=net0'],
        'virtio-blk': ['-drive', `if=none,id=disk0,format=raw,file=${disk}`, '-device', 'virtio-blk-pci,drive=disk0'],
        e1000: ['-netdev', 'user,id=net1,restrict=on', '-device', 'e1000,netdev=net1'],
        usb: ['-device', 'nec-usb-xhci,id=xhci', '-device', 'usb-tablet,bus=xhci.0'],
        // Two RAM blocks that carry the names of their backends.
        numa: ['mem0', 'mem1'].flatMap((id) => [
          ...['-object', `memory-backend-ram,id=${id},size=128M`],
          ...['-numa', `node,memdev=${id}`],
        ]),
      };
      return [
        ...['-smp', String(cpus), '-kernel', join(kernel, 'vmlinuz'), '-initrd', join(kernel, 'initrd.gz')],
        ...['-append', `console=ttyS0 quiet no_timer_check panic=-1 ferrymb=${workMb}`],
        ...devices.flatMap((device) => args[device]),
      ];
    },
    async ready({ serial }) {
      await serial.waitFor((text) => ticked(readTicks([text]), [], 2) || undefined, 'two rounds', BOOT_TIMEOUT_MS);
    },
    async check(lives) {
      const before = readTicks(consoles(lives));
      assert.equal(before.rounds.length, cpus, `workers: ${before.rounds.length} for ${cpus} vCPUs`);
      await last(lives).serial.waitFor(
        () => ticked(readTicks(consoles(lives)), before.rounds, 2) || undefined,
        `two rounds more than ${before.rounds}`,
        WORK_TIMEOUT_MS,
      );
    },
  };
}

function consoles(lives: readonly QemuProcess[]): string[] {
  return lives.map(({ serial }) => serial.text);
}

function last(lives: readonly QemuProcess[]): QemuProcess {
  const qemu = lives.at(-1);
  assert(qemu !== undefined);
  return qemu;
}
