import { setTimeout as pause } from 'node:timers/promises';
import { asError } from '../base/index.ts';
import { beginMigration, ENDED, type QmpMigrationInfo } from '../qemu/index.ts';
import { PorcelainError, type PorcelainFault } from './errors.ts';
import { type ProgressListener, progressOf } from './outcome.ts';
import type { Peer } from './peer.ts';
import type { PostcopyDriver } from './postcopy.ts';

/** How often query-migrate is asked, ms. */
const POLL_MS = 100;
/** A QEMU says that its migration is over a moment before it leaves finish-migrate, and refuses cont until then; longest wait, ms. */
const FINALIZE_MS = 10_000;
const FINALIZE_POLL_MS = 10;

export interface DriveOptions {
  readonly uri: string;
  /** Aborting it cancels the migration; the end is waited for all the same. */
  readonly signal?: AbortSignal | undefined;
  readonly progress?: ProgressListener | undefined;
  /** Goes over to postcopy. From then on `signal` cancels nothing: the guest is not the source's any more. */
  readonly postcopy?: PostcopyDriver | undefined;
}

/**
 * Has a process send its machine to `uri`, and returns query-migrate's reply once that is over, well or badly, or (postcopy)
 * nothing can be done any more. Throws what QMP throws:
 * the command was refused, the process went away. Waits as long as the migration takes: its owner is the peer, its end by `signal`.
 */
export async function driveSource(source: Peer, options: DriveOptions): Promise<QmpMigrationInfo> {
  const { uri, signal, progress, postcopy } = options;
  signal?.throwIfAborted();
  await beginMigration(source, uri);
  let heard = false;
  for (;;) {
    const info = await source.execute('query-migrate');
    progress?.(progressOf(info));
    if (info.status !== undefined && ENDED.has(info.status)) {
      await finalized(source);
      return info;
    }
    await postcopy?.look(info);
    if (postcopy?.over === true) return info;
    if (signal?.aborted === true && !heard) {
      heard = true;
      // Refused means too late: the guest has been handed over. The state that comes next says how it ended.
      if (postcopy?.begun === true) postcopy.tooLate();
      else await source.execute('migrate_cancel').catch(() => {});
    }
    await pause(POLL_MS, undefined, heard ? {} : { signal }).catch(() => {});
  }
}

/** Returns when the process has put its guest where the migration's end wants it: postmigrate, or running again. */
async function finalized(source: Peer): Promise<void> {
  const deadline = performance.now() + FINALIZE_MS;
  while ((await source.state()) === 'finish-migrate' && performance.now() < deadline) await pause(FINALIZE_POLL_MS);
}

/** The error of a migration that ended otherwise than completed, in the peer's words. */
function endedBadly(peer: Peer, info: QmpMigrationInfo): PorcelainError {
  const status = info.status ?? 'none';
  const desc = info['error-desc'] ?? '';
  const fault: PorcelainFault = { code: 'PEER_MIGRATION', peer: peer.path, status, desc };
  return new PorcelainError(fault, `${peer.path}: the migration ${status}${desc && `: ${desc}`}`);
}

/** Why the source's part did not end well, or undefined if it did. */
export function failureOf(source: Peer, driven: PromiseSettledResult<QmpMigrationInfo>): Error | undefined {
  if (driven.status === 'rejected') return asError(driven.reason);
  return driven.value.status === 'completed' ? undefined : endedBadly(source, driven.value);
}
