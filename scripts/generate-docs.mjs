// Writes docs/reference from the declarations. Wants built output: node scripts/generate-docs.mjs [BUILD_FOLDER]
import { mkdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const root = resolve(import.meta.dirname, '..');
const build = resolve(root, process.argv[2] ?? 'dist');
const load = (room) => import(pathToFileURL(join(build, 'src', room, 'index.js')).href);

const { renderQmpReference } = await load('control');
const { renderSettingsReference } = await load('settings');
mkdirSync(join(root, 'docs/reference'), { recursive: true });
writeFileSync(join(root, 'docs/reference/qmp.md'), renderQmpReference());
writeFileSync(join(root, 'docs/reference/settings.md'), renderSettingsReference());
