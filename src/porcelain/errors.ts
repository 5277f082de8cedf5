import { FerryError } from '../base/index.ts';

export type PorcelainFault =
  /** A process is not in the run state that the operation wants. */
  | { readonly code: 'PEER_STATE'; readonly peer: string; readonly wanted: string; readonly found: string }
  /** The peer does not know a capability or parameter that was asked for. */
  | { readonly code: 'PEER_SETTING'; readonly peer: string; readonly name: string }
  /** The process holds another machine than the file or the other side. */
  | { readonly code: 'PEER_MACHINE'; readonly peer: string; readonly expected: string; readonly found: string }
  /** The peer says that its migration ended badly; `desc` in its words. */
  | { readonly code: 'PEER_MIGRATION'; readonly peer: string; readonly status: string; readonly desc: string }
  /** The ends differ in what must agree; each reason names it. Nothing was touched. */
  | { readonly code: 'ENDS_DIFFER'; readonly reasons: readonly string[] }
  /** The connection of a postcopy broke, and could not be made again in so many attempts. */
  | { readonly code: 'POSTCOPY_PAUSED'; readonly attempts: number }
  /** What one side says about the end contradicts the other. */
  | { readonly code: 'SIDES_DISAGREE'; readonly source: string; readonly destination: string };

export class PorcelainError extends FerryError<PorcelainFault> {}

export function wrongPeerState(peer: string, wanted: string, found: string, message: string): PorcelainError {
  return new PorcelainError({ code: 'PEER_STATE', peer, wanted, found }, `${peer}: ${message}`);
}
