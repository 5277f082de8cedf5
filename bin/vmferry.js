#!/usr/bin/env -S node --enable-source-maps
import { existsSync } from 'node:fs';

const main = new URL('../dist/src/cli/main.js', import.meta.url);
if (existsSync(main)) {
  await import(main.href);
} else {
  process.stderr.write('vmferry is not built yet: run `npm run setup` in its folder\n');
  process.exitCode = 1;
}
