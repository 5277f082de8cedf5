/** The table of waits and the engine say the same: nobody waits by a name that is not declared (the compiler), and nothing is declared for which nobody waits. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { deviceDeadlines } from '../../src/cli/run/device-deadlines.ts';
import { PARAMETER_NAMES, Settings, WAITS } from '../../src/settings/index.ts';
import { DEVICE_DEADLINES } from '../../src/vfio/index.ts';
import { repository } from '../support/repository.ts';

const SRC = join(repository(), 'src');
const SOURCES = readdirSync(SRC, { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.ts') && !file.startsWith('settings/'))
  .map((file) => readFileSync(join(SRC, file), 'utf8'));

for (const name of Object.keys(WAITS)) {
  test(`somebody waits: ${name}`, () => {
    const used = new RegExp(`WAITS(\\.${name}\\b|\\['${name}'\\])|(wait|inTime|Watch)\\([^;]*'${name}'`);
    assert.ok(SOURCES.some((source) => used.test(source)));
  });
}

test('what devices may take by default is said twice, and the same', () => {
  const { transitionMs, dataMs, answerMs } = deviceDeadlines(new Settings());
  assert.deepEqual({ transitionMs, dataMs, answerMs }, DEVICE_DEADLINES);
});

test('every parameter that is a timeout limits a wait', () => {
  const deadlines = new Set<string>(Object.values(WAITS).flatMap((one) => ('deadline' in one ? [one.deadline] : [])));
  const timeouts = PARAMETER_NAMES.filter((name) => /^x-.*-timeout$/.test(name));
  assert.deepEqual(
    timeouts.filter((name) => !deadlines.has(name)),
    [],
  );
});
