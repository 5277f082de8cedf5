import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { renderCliReference } from '../../src/cli/reference.ts';

test('docs/reference/cli.md is what the declarations say (node scripts/generate-docs.mjs makes it so)', () => {
  assert.equal(readFileSync(join(process.cwd(), 'docs/reference/cli.md'), 'utf8'), renderCliReference());
});
