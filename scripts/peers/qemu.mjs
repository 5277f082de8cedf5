// qemu-system-x86_64 of a Debian suite in a folder of its own, started through the loader that came along with it.
import { execFile } from 'node:child_process';
import { chmod, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { inFreshFolder, unpackPackages } from './debian.mjs';

const SUITES = { 7.2: ['bookworm'], '10.0': ['bookworm-backports', 'bookworm'], 11.1: ['forky'] };

const START = `#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
libraries=$here/lib/x86_64-linux-gnu:$here/usr/lib/x86_64-linux-gnu
for loader in "$here"/lib64 "$here"/usr/lib64 "$here"/usr/lib/x86_64-linux-gnu; do
  [ -e "$loader/ld-linux-x86-64.so.2" ] && break
done
export QEMU_MODULE_DIR="$here/usr/lib/x86_64-linux-gnu/qemu"
exec "$loader/ld-linux-x86-64.so.2" --library-path "$libraries" "$here/usr/bin/qemu-system-x86_64" \\
  -L "$here/usr/share/qemu" -L "$here/usr/share/seabios" -L "$here/usr/lib/ipxe/qemu" "$@"
`;

/** Its version says little: the emulator itself may be a module (7.2), which is looked for where the package would be installed. */
async function emulates(start) {
  const machine = promisify(execFile)(
    start,
    '-machine none -accel tcg -display none -monitor stdio -nodefaults'.split(' '),
    { timeout: 20_000 },
  );
  machine.child.stdin.end('quit\n');
  await machine;
}

/** Unpacks QEMU `name` (major.minor) into `peers`/qemu-NAME; returns what came. Throws if it cannot be had. */
export async function unpackQemu(name, peers) {
  if (process.platform !== 'linux' || process.arch !== 'x64') throw new Error('only for x86-64 Linux');
  let version = '';
  await inFreshFolder(join(peers, `qemu-${name}`), async (folder) => {
    await unpackPackages({ suites: SUITES[name], packages: ['qemu-system-x86', 'seabios'], destination: folder });
    const start = join(folder, 'qemu-system-x86_64');
    await writeFile(start, START);
    await chmod(start, 0o755);
    const { stdout } = await promisify(execFile)(start, ['--version']);
    version = stdout.match(/version (\d+\.\d+\.\d+)/)?.[1] ?? 'no version';
    if (!version.startsWith(`${name}.`)) throw new Error(`${SUITES[name][0]} now has ${version}`);
    await emulates(start);
  });
  return `unpacked ${version}`;
}
