// The Linux guest of the interoperability tests: Debian's cloud kernel and an initramfs of busybox, the virtio drivers and our own init.
//
//   qemu-system-x86_64 -nodefaults -machine q35 -accel tcg -m 256 -display none -serial stdio \
//     -kernel .peers/linux-guest/vmlinuz -initrd .peers/linux-guest/initrd.gz -append 'console=ttyS0 quiet ferrymb=16'
import { existsSync } from 'node:fs';
import { copyFile, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { inFreshFolder, unpackPackages } from './debian.mjs';

/** In the order in which they load. */
const MODULES = [
  ...['virtio', 'virtio_ring', 'virtio_pci_modern_dev', 'virtio_pci_legacy_dev', 'virtio_pci'],
  ...['virtio_blk', 'failover', 'net_failover', 'virtio_net'],
];

/** Builds `peers`/linux-guest unless it is there, made of the same init; returns what was done. Throws if it cannot be had. */
export async function buildLinuxGuest(peers) {
  const folder = join(peers, 'linux-guest');
  const init = await readFile(new URL('./linux-guest-init.sh', import.meta.url));
  const present = ['vmlinuz', 'initrd.gz', 'init'].every((name) => existsSync(join(folder, name)));
  if (present && init.equals(await readFile(join(folder, 'init')))) return undefined;
  const root = await mkdtemp(join(tmpdir(), 'vmferry-guest-'));
  try {
    await unpackPackages({
      suites: ['bookworm'],
      packages: ['linux-image-cloud-amd64', 'busybox-static'],
      destination: root,
    });
    const kernel = (await readdir(join(root, 'boot'))).find((name) => name.startsWith('vmlinuz-'));
    if (kernel === undefined) throw new Error('the kernel package holds no kernel');
    const archive = new CpioArchive();
    for (const name of ['bin', 'dev', 'proc', 'sys', 'tmp', 'modules']) archive.directory(name);
    archive.file('bin/busybox', await readFile(join(root, 'bin', 'busybox')), 0o755);
    archive.file('init', init, 0o755);
    const tree = join(root, 'lib', 'modules', kernel.replace('vmlinuz-', ''), 'kernel');
    const modulePaths = await readdir(tree, { recursive: true });
    for (const module of MODULES) {
      const path = modulePaths.find((name) => name.endsWith(`/${module}.ko`));
      if (path === undefined) throw new Error(`the kernel package holds no module ${module}`);
      archive.file(`modules/${module}.ko`, await readFile(join(tree, path)), 0o644);
    }
    archive.file('modules/order', Buffer.from(`${MODULES.join('\n')}\n`), 0o644);
    await inFreshFolder(folder, async (fresh) => {
      await copyFile(join(root, 'boot', kernel), join(fresh, 'vmlinuz'));
      await writeFile(join(fresh, 'initrd.gz'), gzipSync(archive.bytes(), { level: 1 }));
      await writeFile(join(fresh, 'init'), init);
    });
    return `built, Linux ${kernel.replace('vmlinuz-', '')}`;
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}

/** An initramfs: cpio "newc" entries, each a header of 13 hexadecimal fields, the name and the content, padded to four bytes. */
class CpioArchive {
  #parts = [];
  #inode = 0;

  directory(name) {
    this.#entry(name, 0o040755, Buffer.alloc(0));
  }

  file(name, content, permissions) {
    this.#entry(name, 0o100000 | permissions, content);
  }

  bytes() {
    this.#entry('TRAILER!!!', 0, Buffer.alloc(0));
    return Buffer.concat(this.#parts);
  }

  #entry(name, mode, content) {
    const [uid, gid, links, time, device] = [0, 0, 1, 0, 0];
    const fields = [
      ...[++this.#inode, mode, uid, gid, links, time, content.length],
      ...[device, device, device, device, name.length + 1, 0],
    ];
    const header = '070701' + fields.map((field) => field.toString(16).padStart(8, '0')).join('');
    this.#padded(Buffer.from(`${header}${name}\0`));
    this.#padded(content);
  }

  #padded(bytes) {
    this.#parts.push(bytes, Buffer.alloc(-bytes.length & 3));
  }
}
