import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after } from 'node:test';
import { fileURLToPath } from 'node:url';
import { fixture } from '../wire/streams.ts';

const MAIN = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'vmferry-inspect-'));
after(() => rmSync(folder, { recursive: true }));

function file(name: string, bytes: Buffer): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

function vmferry(...args: string[]): { status: number | null; lines: string[]; stderr: string } {
  const run = spawnSync(process.execPath, [MAIN, 'inspect', ...args], {
    encoding: 'utf8',
    timeout: 60_000,
    maxBuffer: 2 ** 26,
  });
  return { status: run.status, lines: run.stdout.split('\n').slice(0, -1), stderr: run.stderr };
}

const whole = file('whole', fixture('pc-11.1'));
const cut = file('cut', fixture('pc-11.1').subarray(0, 70_000));

test('a file that is whole: exit status 0, plain text', () => {
  const { status, lines, stderr } = vmferry(whole);
  assert.equal(status, 0, stderr);
  assert.match(lines[0]!, /migration stream/);
  assert.ok(!lines.some((line) => line.includes('\x1b')), 'no colours into a pipe');
});

test('--json: devices a line each, then the result', () => {
  const { status, lines } = vmferry(whole, '--json', '--section', 'i8259');
  assert.equal(status, 0);
  const objects = lines.map((line) => JSON.parse(line));
  assert.deepEqual(
    objects.map(({ type, idstr, instance }) => [type, idstr, instance]),
    [
      ['device', 'i8259', 0],
      ['device', 'i8259', 1],
      ['result', undefined, undefined],
    ],
  );
  assert.equal(objects[2].status, 'completed');
  assert.equal(objects[2].sections.length, 2);
});

test('a damaged file: explained, exit status 1', () => {
  const text = vmferry(cut);
  assert.equal(text.status, 1);
  assert.ok(text.lines.some((line) => line.startsWith('Damaged at offset 70,000')));
  const json = vmferry(cut, '--json');
  assert.equal(json.status, 1);
  const result = JSON.parse(json.lines.at(-1)!);
  assert.equal(result.status, 'failed');
  assert.equal(result.damage.offset, 70_000);
});

test('--offset, also in hex', () => {
  const shifted = file('shifted', Buffer.concat([Buffer.alloc(4096), fixture('pc-11.1')]));
  assert.equal(vmferry(shifted).status, 1);
  assert.equal(vmferry(shifted, '--offset', '4096').status, 0);
  assert.equal(vmferry(shifted, '--offset', '0x1000').status, 0);
});

test('--analyze prints JSON alone', () => {
  const state = vmferry(whole, '--analyze', 'state');
  assert.equal(state.status, 0);
  assert.ok('ram (1)' in JSON.parse(state.lines.join('\n')));
  const desc = vmferry(whole, '--analyze', 'desc');
  assert.equal(JSON.parse(desc.lines.join('\n')).page_size, 4096);
  const none = vmferry(cut, '--analyze', 'state');
  assert.equal(none.status, 1);
  assert.match(none.stderr, /carries no description/);
});

test('what cannot be: a file that is not there 1, usage 2', () => {
  const absent = vmferry(join(folder, 'absent'));
  assert.equal(absent.status, 1);
  assert.match(absent.stderr, /ENOENT/);
  const json = JSON.parse(vmferry(join(folder, 'absent'), '--json').lines[0]!);
  assert.deepEqual([json.type, json.status], ['result', 'failed']);
  assert.equal(vmferry(whole, '--offset', 'soon').status, 2);
  assert.equal(vmferry(whole, '--analyze', 'everything').status, 2);
});
