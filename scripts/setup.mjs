// Makes a clone ready, with nothing but Node.js 20 and npm: dependencies, build, and with --peers the QEMUs and the Linux guest that the
// interoperability tests move machines between. Does only what is missing; each thing done is one line.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
process.chdir(root);

try {
  installDependencies();
  build();
  if (process.argv.includes('--peers')) await installPeers();
} catch (error) {
  process.stderr.write(`setup: ${error.message}\n`);
  process.exitCode = 1;
}

function installDependencies() {
  const installed = 'node_modules/.package-lock.json';
  if (existsSync(installed) && statSync(installed).mtimeMs >= statSync('package-lock.json').mtimeMs) return;
  run('installing npm packages', 'npm', ['ci', '--include=dev', '--no-audit', '--no-fund', '--loglevel=error']);
}

/**
 * Builds beside dist (source maps hold the depth of the folder) and swaps, so that whoever runs from dist never meets half a build, nor
 * files whose source is gone.
 */
function build() {
  const fingerprint = sourcesFingerprint();
  const stamp = 'dist/.sources';
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === fingerprint) return;
  const fresh = `dist.new-${process.pid}`;
  try {
    const compiler = join('node_modules', 'typescript', 'bin', 'tsc');
    run('compiling', process.execPath, [compiler, '-p', '.', '--outDir', fresh, '--incremental', 'false']);
    writeFileSync(join(fresh, '.sources'), fingerprint);
    rmSync('dist', { recursive: true, force: true });
    renameSync(fresh, 'dist');
  } finally {
    rmSync(fresh, { recursive: true, force: true });
  }
}

function sourcesFingerprint() {
  const hash = createHash('sha256');
  const files = ['tsconfig.json', 'package-lock.json'];
  for (const folder of ['src', 'test', 'bench']) {
    if (!existsSync(folder)) continue;
    for (const name of readdirSync(folder, { recursive: true })) {
      if (name.endsWith('.ts')) files.push(join(folder, name));
    }
  }
  for (const file of files.sort()) hash.update(`${file}\0`).update(readFileSync(file)).update('\0');
  return hash.digest('hex');
}

async function installPeers() {
  const { findPeer, REQUIRED_PEERS, peersDirectory } = await import('../dist/src/qemu/index.js');
  const { unpackQemu } = await import('./peers/qemu.mjs');
  const { buildLinuxGuest } = await import('./peers/linux-guest.mjs');
  const wanted = [];
  for (const name of REQUIRED_PEERS) {
    if ((await findPeer(name)) === undefined) wanted.push([`QEMU ${name}`, () => unpackQemu(name, peersDirectory())]);
  }
  wanted.push(['Linux guest', () => buildLinuxGuest(peersDirectory())]);
  const missing = [];
  await Promise.all(
    wanted.map(async ([what, install]) => {
      try {
        const done = await install();
        if (done !== undefined) say(`${what}: ${done}`);
      } catch (error) {
        missing.push(what);
        say(`${what}: cannot be had (${error.message}); tests that need it are skipped`);
      }
    }),
  );
  if (missing.length > 0 && process.env.CI === 'true') throw new Error(`CI needs ${missing.join(', ')}`);
}

function run(what, command, args) {
  const startedMs = Date.now();
  const { status, error, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8' });
  if (status !== 0) {
    const said = `${error?.message ?? ''}${stdout ?? ''}${stderr ?? ''}`.trim().split('\n').slice(0, 20).join('\n');
    throw new Error(`${what} failed: ${command} ${args.join(' ')}\n${said}`);
  }
  say(`${what}: done in ${((Date.now() - startedMs) / 1000).toFixed(1)} s`);
}

function say(text) {
  process.stdout.write(`setup: ${text}\n`);
}
