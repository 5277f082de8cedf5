// Writes docs/reference from the declarations. Wants built output: node scripts/generate-docs.mjs [BUILD_FOLDER]
import { mkdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const root = resolve(import.meta.dirname, '..');
const build = resolve(root, process.argv[2] ?? 'dist');
const load = (file) => import(pathToFileURL(join(build, 'src', file)).href);

const { renderCliReference } = await load('cli/reference.js');
const { renderQmpReference } = await load('control/index.js');
const { renderSettingsReference } = await load('settings/index.js');
mkdirSync(join(root, 'docs/reference'), { recursive: true });
writeFileSync(join(root, 'docs/reference/cli.md'), renderCliReference());
writeFileSync(join(root, 'docs/reference/qmp.md'), renderQmpReference());
writeFileSync(join(root, 'docs/reference/settings.md'), renderSettingsReference());
