import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** Root of the checkout, wherever the build lies in it. */
export function repository(): string {
  let folder = import.meta.dirname;
  while (!existsSync(join(folder, 'package.json'))) folder = dirname(folder);
  return folder;
}

/** A folder of test/fixtures. */
export function fixtures(name: string): string {
  return join(repository(), 'test', 'fixtures', name);
}
