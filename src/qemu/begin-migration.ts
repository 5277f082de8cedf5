import { setTimeout as pause } from 'node:timers/promises';
import { QmpError } from './errors.ts';
import type { QmpClient } from './qmp-client.ts';
import { ENDED } from './qmp-commands.ts';

/** How long a QEMU is given to clear its last migration away, ms. */
const CLEARED_MS = 10_000;
const POLL_MS = 20;

/** A peer that commands can be given to. */
export type Commanded = Pick<QmpClient, 'execute'>;

/** Has a process send its machine to `uri`. Throws what QMP throws. */
export async function beginMigration(source: Commanded, uri: string): Promise<void> {
  await cleared(source);
  await source.execute('migrate', { uri });
}

/**
 * A QEMU says that its migration has failed a moment before it has cleared it away. Another one is refused until then, and is begun all the same:
 * from then on every other is refused too ("There's a migration process in progress"). What is left of the last one is its yank instance.
 */
async function cleared(source: Commanded): Promise<void> {
  for (const deadlineMs = performance.now() + CLEARED_MS; performance.now() < deadlineMs; await pause(POLL_MS)) {
    if (!(await yankable(source)).includes('migration')) return;
    const { status } = await source.execute('query-migrate');
    // One that is under way is refused by that name.
    if (status === undefined || !ENDED.has(status)) return;
  }
}

async function yankable(source: Commanded): Promise<readonly string[]> {
  try {
    return (await source.execute('query-yank')).map(({ type }) => type);
  } catch (error) {
    // vmferry has no such thing.
    if (error instanceof QmpError && error.class === 'CommandNotFound') return [];
    throw error;
  }
}
