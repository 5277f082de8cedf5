import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Runs `use` with the path of a unix socket in a folder that only this user can enter; the folder goes afterwards. */
export async function withPrivateSocket<T>(use: (path: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'vmferry-'));
  try {
    return await use(join(folder, 'migration.sock'));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
