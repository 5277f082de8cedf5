import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { PACKAGE_VERSION, renderQmpReference } from '../../src/control/index.ts';
import { renderSettingsReference } from '../../src/settings/index.ts';

/** Tests run in the repository's root, wherever they were built to. */
const ROOT = process.cwd();

function rootFile(name: string): string {
  return readFileSync(join(ROOT, name), 'utf8');
}

test('docs/reference is what the declarations say (node scripts/generate-docs.mjs makes it so)', () => {
  assert.equal(rootFile('docs/reference/qmp.md'), renderQmpReference());
  assert.equal(rootFile('docs/reference/settings.md'), renderSettingsReference());
});

test('the version is that of package.json', () => {
  assert.equal(PACKAGE_VERSION, (JSON.parse(rootFile('package.json')) as { version: string }).version);
});
