// Debian packages without touching the system: apt with a state of its own, dpkg -x into a folder. Needs no root.
import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const exec = promisify(execFile);
const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';
const APT_TIMEOUT_MS = 300_000;

/** The Debian mirror that apt already uses here. Throws where there is none. */
function debianMirror() {
  const folder = '/etc/apt/sources.list.d';
  const files = ['/etc/apt/sources.list'];
  if (existsSync(folder)) files.push(...readdirSync(folder).map((name) => join(folder, name)));
  for (const file of files.filter((name) => existsSync(name))) {
    for (const line of readFileSync(file, 'utf8').split('\n')) {
      const uri = line.match(/^(?:URIs:|deb(?: \[[^\]]*\])?) *(\S+\/debian)\/?(?:\s|$)/)?.[1];
      if (uri !== undefined) return uri;
    }
  }
  throw new Error("no Debian mirror among apt's sources");
}

/** Unpacks `packages` of the first of `suites` into `destination`, with all they depend on, the C library included. */
export async function unpackPackages({ suites, packages, destination }) {
  const mirror = debianMirror();
  const state = await mkdtemp(join(tmpdir(), 'vmferry-apt-'));
  try {
    const archives = join(state, 'cache', 'archives');
    for (const folder of [join(state, 'lists', 'partial'), join(archives, 'partial')]) {
      await mkdir(folder, { recursive: true });
    }
    await writeFile(join(state, 'status'), '');
    const sources = suites.map((suite) => `deb [signed-by=${KEYRING}] ${mirror} ${suite} main\n`);
    await writeFile(join(state, 'sources.list'), sources.join(''));
    const settings = {
      'Dir::Etc::sourcelist': join(state, 'sources.list'),
      'Dir::Etc::sourceparts': '/dev/null',
      'Dir::State::lists': join(state, 'lists'),
      'Dir::State::status': join(state, 'status'),
      'Dir::Cache': join(state, 'cache'),
      'APT::Install-Recommends': 'false',
      'APT::Sandbox::User': '',
      'Debug::NoLocking': '1',
    };
    const options = ['-qq', ...Object.entries(settings).flatMap(([key, value]) => ['-o', `${key}=${value}`])];
    const apt = (...args) => exec('apt-get', [...options, ...args], { timeout: APT_TIMEOUT_MS });
    await apt('update');
    await apt('-t', suites[0], '-y', '--download-only', 'install', ...packages);
    const names = await readdir(archives);
    for (const name of names.filter((name) => name.endsWith('.deb'))) {
      await exec('dpkg', ['-x', join(archives, name), destination]);
    }
  } catch (error) {
    const said = (error.stderr ?? '').trim().split('\n').at(-1);
    throw new Error(said || error.message.split('\n')[0], { cause: error });
  } finally {
    await rm(state, { recursive: true, force: true });
  }
}

/** Lets `fill` write into a new folder that becomes `destination` only when it is complete. */
export async function inFreshFolder(destination, fill) {
  const fresh = `${destination}-${process.pid}.tmp`;
  await mkdir(fresh, { recursive: true });
  try {
    await fill(fresh);
    await rm(destination, { recursive: true, force: true });
    await rename(fresh, destination);
  } finally {
    await rm(fresh, { recursive: true, force: true });
  }
}
