import { setTimeout as pause } from 'node:timers/promises';
import { QmpError } from './errors.ts';

/** A QEMU says that its migration has failed a moment before it has cleared it away, and refuses another one until then; longest wait, ms. */
const CLEARED_MS = 10_000;
const POLL_MS = 20;
/** How it says that (yank_register_instance). */
const NOT_CLEARED = 'duplicate yank instance';

/** Has a process send its machine to `uri`. Throws what QMP throws. */
export async function beginMigration(
  source: { execute(command: 'migrate', args: { readonly uri: string }): Promise<unknown> },
  uri: string,
): Promise<void> {
  for (const deadlineMs = performance.now() + CLEARED_MS; ; await pause(POLL_MS)) {
    try {
      await source.execute('migrate', { uri });
      return;
    } catch (error) {
      const again = error instanceof QmpError && error.desc === NOT_CLEARED && performance.now() < deadlineMs;
      if (!again) throw error;
    }
  }
}
