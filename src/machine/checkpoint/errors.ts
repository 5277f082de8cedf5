import { FerryError } from '../../base/index.ts';

export type CheckpointFault =
  /** The path cannot name a checkpoint: a folder, a device, a pipe. */
  | { readonly code: 'CHECKPOINT_PATH'; readonly path: string }
  /** The file system has less room than the machine's RAM may take; bytes. */
  | { readonly code: 'CHECKPOINT_SPACE'; readonly path: string; readonly needed: number; readonly free: number }
  /** The system refused an operation; `errno` is its name (ENOSPC, EIO, ENOENT ...). */
  | { readonly code: 'CHECKPOINT_IO'; readonly path: string; readonly operation: string; readonly errno: string }
  /** A stream file without mapped-ram: its pages have no fixed place to be read from. */
  | { readonly code: 'CHECKPOINT_NOT_MAPPED'; readonly path: string }
  /** Something a checkpoint cannot hold, or a file that holds something we cannot give back. */
  | { readonly code: 'CHECKPOINT_UNSUPPORTED'; readonly path: string; readonly what: string }
  /** The device sections are not what the stream's description says. */
  | { readonly code: 'CHECKPOINT_DEVICES'; readonly path: string }
  /** Parameter direct-io is on, but pages cannot go past the page cache there. */
  | { readonly code: 'CHECKPOINT_DIRECT_IO'; readonly path: string }
  | { readonly code: 'CHECKPOINT_CLOSED'; readonly path: string };

export type CheckpointError = FerryError<CheckpointFault>;

export function checkpointError(fault: CheckpointFault, message: string, cause?: unknown): CheckpointError {
  return new FerryError(fault, `${fault.path}: ${message}`, cause);
}

export function unsupported(path: string, what: string): CheckpointError {
  return checkpointError({ code: 'CHECKPOINT_UNSUPPORTED', path, what }, `a checkpoint cannot hold ${what}`);
}

/** What the system said, as our error; errors that are ours already pass. */
export function ioError(path: string, operation: string, thrown: unknown): Error {
  if (thrown instanceof FerryError) return thrown;
  const errno = thrown instanceof Error && 'code' in thrown ? String(thrown.code) : 'unknown';
  const why = errno === 'ENOSPC' ? 'no space left on the device' : errno;
  return checkpointError({ code: 'CHECKPOINT_IO', path, operation, errno }, `cannot ${operation} (${why})`, thrown);
}
