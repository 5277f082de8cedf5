/**
 * Which QEMUs this machine has. Looked for in this order, one for each name (major.minor of its --version):
 * VMFERRY_QEMU_7_2, VMFERRY_QEMU_10_0, VMFERRY_QEMU_11_1 in the environment; `.peers/qemu-*` in the repository (scripts/setup.mjs --peers
 * puts them there); qemu-system-x86_64 in PATH.
 */
import { execFile } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

export interface QemuPeer {
  /** major.minor: `7.2`, `10.0`, `11.1`. */
  readonly name: string;
  /** As --version says: `7.2.22`. */
  readonly version: string;
  readonly path: string;
}

/** The versions that vmferry is proved against; with CI=true tests require all of them. */
export const REQUIRED_PEERS = ['7.2', '10.0', '11.1'] as const;

const BINARY = 'qemu-system-x86_64';
const VERSION_TIMEOUT_MS = 20_000;

let found: Promise<readonly QemuPeer[]> | undefined;

/** All QEMUs there are, oldest first. Asked once in a process. */
export function findPeers(): Promise<readonly QemuPeer[]> {
  found ??= search();
  return found;
}

/** The peer of that name, or undefined if this machine has none. */
export async function findPeer(name: string): Promise<QemuPeer | undefined> {
  return (await findPeers()).find((peer) => peer.name === name);
}

/** `.peers` of the repository this file is part of. */
export function peersDirectory(): string {
  let at = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(at, 'package.json')) && dirname(at) !== at) at = dirname(at);
  return join(at, '.peers');
}

async function search(): Promise<readonly QemuPeer[]> {
  const peers = new Map<string, QemuPeer>();
  for (const path of candidates()) {
    const version = await askVersion(path);
    const name = version?.match(/^\d+\.\d+/)?.[0];
    if (version !== undefined && name !== undefined && !peers.has(name)) peers.set(name, { name, version, path });
  }
  return [...peers.values()].sort((a, b) => a.name.localeCompare(b.name, 'en', { numeric: true }));
}

function candidates(): string[] {
  const named = REQUIRED_PEERS.map((name) => process.env[`VMFERRY_QEMU_${name.replace('.', '_')}`] ?? '');
  const directory = peersDirectory();
  const unpacked = existsSync(directory) ? readdirSync(directory).filter((name) => name.startsWith('qemu-')) : [];
  const inPath = (process.env['PATH'] ?? '').split(delimiter).map((folder) => join(folder, BINARY));
  const paths = [...named, ...unpacked.sort().map((name) => join(directory, name, BINARY)), ...inPath];
  return paths.filter((path) => path !== '' && existsSync(path));
}

async function askVersion(path: string): Promise<string | undefined> {
  try {
    const { stdout } = await promisify(execFile)(path, ['--version'], { timeout: VERSION_TIMEOUT_MS });
    return stdout.match(/version (\d+\.\d+\.\d+)/)?.[1];
  } catch {
    return undefined; // not executable here: as good as absent
  }
}
