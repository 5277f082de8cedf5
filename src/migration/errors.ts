import { FerryError } from '../base/index.ts';
import { SHUT_NEVER_STARTED } from './return-path.ts';

export type MigrationFault =
  /** Cancelled by a person or a manager; the source guest goes on. */
  | { readonly code: 'MIGRATION_CANCELLED' }
  /** The destination said so over the return path (SHUT with a value other than 0) or broke the return path's rules. */
  | { readonly code: 'MIGRATION_PEER_FAILED'; readonly value: number }
  /** The peer or the link went away. */
  | { readonly code: 'MIGRATION_PEER_GONE'; readonly phase: string }
  /** The peer went away before anything of the guest was through: the two ends may be set up differently; the cause is what was seen of it. */
  | { readonly code: 'MIGRATION_LEFT_EARLY'; readonly who: 'source' | 'destination' }
  /** The destination took the main channel, and not this one. */
  | { readonly code: 'MIGRATION_CHANNEL_NOT_TAKEN'; readonly channel: string }
  /**
   * The source has handed the machine over and then lost sight of the destination: the guest may run there. It is left
   * stopped here, and a person (or `vmferry migrate`, which sees both ends) decides.
   */
  | { readonly code: 'MIGRATION_UNCONFIRMED' }
  /** The two sides do not fit: machine type, uuid, capabilities, RAM. */
  | { readonly code: 'MIGRATION_MISMATCH'; readonly what: string; readonly expected: string; readonly found: string }
  /** The handshake has found what cannot work; each reason names the rule and the device, block or setting. Nothing was touched. */
  | { readonly code: 'MIGRATION_ENDS_DIFFER'; readonly reasons: readonly string[] }
  /** Not possible in the state that the process is in. */
  | { readonly code: 'MIGRATION_STATE'; readonly state: string }
  /** The destination has said that initial data is loaded more often than it was sent; `asked` times. */
  | { readonly code: 'MIGRATION_SWITCHOVER_ACK'; readonly asked: number }
  /** A wait passed its deadline. */
  | { readonly code: 'MIGRATION_DEADLINE'; readonly waitingFor: string; readonly deadlineMs: number }
  | { readonly code: 'MIGRATION_UNSUPPORTED'; readonly feature: string }
  /** A postcopy was paused by an operator. */
  | { readonly code: 'MIGRATION_PAUSED' }
  /** What the destination says in a recovery does not fit. */
  | { readonly code: 'MIGRATION_RECOVERY'; readonly block: string }
  /** The destination asks for pages that cannot be asked for. `start` and `length` in bytes. */
  | {
      readonly code: 'MIGRATION_PAGE_REQUEST';
      readonly block: string;
      readonly start: number;
      readonly length: number;
    }
  /** Target pages of a host page do not come in order, or not all. Numbers of target pages. */
  | {
      readonly code: 'MIGRATION_HOST_PAGE';
      readonly block: string;
      readonly page: number;
      readonly expected: number;
    }
  /** The source says that it has sent everything, and pages are missing. Target pages. */
  | { readonly code: 'MIGRATION_PAGES_MISSING'; readonly count: number }
  /** The source says to drop pages that cannot be dropped. */
  | { readonly code: 'MIGRATION_DISCARD'; readonly block: string; readonly start: number; readonly length: number };

export class MigrationError extends FerryError<MigrationFault> {}

export function mismatch(what: string, expected: string, found: string): MigrationError {
  return new MigrationError(
    { code: 'MIGRATION_MISMATCH', what, expected, found },
    `${what} does not match: ${expected} expected, ${found} found`,
  );
}

export function wrongState(state: string, message: string): MigrationError {
  return new MigrationError({ code: 'MIGRATION_STATE', state }, message);
}

export function unsupported(feature: string): MigrationError {
  return new MigrationError({ code: 'MIGRATION_UNSUPPORTED', feature }, `${feature} is not supported`);
}

/** The destination's word that its guest has not run there and never will. */
export function isNeverStarted(error: Error): boolean {
  return (
    error instanceof MigrationError &&
    error.fault.code === 'MIGRATION_PEER_FAILED' &&
    error.fault.value === SHUT_NEVER_STARTED
  );
}

export function badPageRequest(block: string, start: number, length: number, why: string): MigrationError {
  return new MigrationError(
    { code: 'MIGRATION_PAGE_REQUEST', block, start, length },
    `page request of the destination (block '${block}', ${length} bytes from ${start}): ${why}`,
  );
}

export function badDiscard(block: string, start: number, length: number, why: string): MigrationError {
  return new MigrationError(
    { code: 'MIGRATION_DISCARD', block, start, length },
    `command POSTCOPY_RAM_DISCARD (block '${block}', ${length} bytes from ${start}): ${why}`,
  );
}
