/** The house rules of docs/architecture.md, held by a test: who may import whom, one door a room, no orphan, no long import path. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, relative } from 'node:path';
import test from 'node:test';
import { repository } from '../support/repository.ts';

const ROOT = repository();
const SRC = join(ROOT, 'src');

/** A room may import the rooms listed; `cli` assembles and may import all. */
const FLOORS: Readonly<Record<string, readonly string[]>> = {
  base: [],
  native: ['base'],
  wire: ['base'],
  settings: ['base'],
  transport: ['base', 'native'],
  machine: ['base', 'native', 'wire'],
  inspect: ['base', 'wire'],
  qemu: ['base'],
  dataplane: ['base', 'native', 'wire', 'machine'],
  vfio: ['base', 'native', 'wire', 'transport', 'machine'],
  migration: ['base', 'native', 'wire', 'settings', 'transport', 'machine', 'dataplane'],
  control: ['base', 'settings', 'migration'],
  porcelain: ['base', 'wire', 'settings', 'transport', 'machine', 'migration', 'qemu'],
  cli: [
    'base',
    'wire',
    'settings',
    'transport',
    'machine',
    'vfio',
    'inspect',
    'qemu',
    'migration',
    'control',
    'porcelain',
  ],
};

/** A room's index is its door; this one is for threads, which would load all of wire for nothing. */
const DOOR_FOR_THREADS = 'wire/multifd/index.ts';

const files = readdirSync(SRC, { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts'))
  .map((name) => ({ name, text: readFileSync(join(SRC, name), 'utf8') }));

function imports(file: { name: string; text: string }): string[] {
  return [...file.text.matchAll(/(?:from|import|new URL\()\s*['"](\.{1,2}\/[^'"]+)['"]/g)].map((match) =>
    normalize(join(dirname(file.name), match[1]!)).replace(/\.js$/, '.ts'),
  );
}

const roomOf = (name: string) => (name.includes('/') ? name.slice(0, name.indexOf('/')) : '');

test('a room imports only what its floor allows, and only through the door', () => {
  const wrong: string[] = [];
  for (const file of files) {
    const room = roomOf(file.name);
    if (room === '') continue;
    assert.ok(FLOORS[room] !== undefined, `room ${room} is not on the map`);
    for (const target of imports(file)) {
      const other = roomOf(target);
      if (other === room) continue;
      if (!FLOORS[room].includes(other)) wrong.push(`${file.name} imports ${target}`);
      else if (target !== `${other}/index.ts` && target !== DOOR_FOR_THREADS)
        wrong.push(`${file.name} goes round the door: ${target}`);
    }
  }
  assert.deepEqual(wrong, []);
});

test('wire and base know no I/O', () => {
  const wrong = files
    .filter((file) => ['wire', 'base'].includes(roomOf(file.name)))
    .filter((file) => /from\s+['"]node:/.test(file.text))
    .map((file) => file.name);
  assert.deepEqual(wrong, []);
});

test('no orphan: every file is imported, or is an entry', () => {
  const entries = new Set(['index.ts', 'cli/main.ts', 'cli/reference.ts', 'dataplane/index.ts', 'vfio/index.ts']);
  const used = new Set(files.flatMap(imports));
  const orphans = files.map((file) => file.name).filter((name) => !used.has(name) && !entries.has(name));
  assert.deepEqual(orphans, []);
});

test('no path of a machine and no registry host in what is committed', () => {
  const wrong = files.filter((file) => /(^|[^\w.])\/(work|root|opt)\//.test(file.text)).map((file) => file.name);
  assert.deepEqual(wrong, []);
  const lock = readFileSync(join(ROOT, 'package-lock.json'), 'utf8');
  assert.ok(!lock.includes('"resolved"'), `${relative(ROOT, 'package-lock.json')} records download addresses`);
});
