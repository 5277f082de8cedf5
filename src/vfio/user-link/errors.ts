import { asError, FerryError } from '../../base/index.ts';
import { isWireError, type vfioUser } from '../../wire/index.ts';
import { ERRNO, errnoName } from '../errors.ts';

type Command = vfioUser.CommandName;

/** What can go wrong between the two ends of a vfio-user connection. All but VFIOUSER_REFUSED end it. */
export type VfioUserFault =
  /** One side says no to the other; the connection goes on. `peer`: who says it. `errno`: Linux number. */
  | { readonly code: 'VFIOUSER_REFUSED'; readonly peer: string; readonly command: Command; readonly errno: number }
  /** No answer within the time that this command may take. */
  | { readonly code: 'VFIOUSER_SILENT'; readonly peer: string; readonly command: Command; readonly timeoutMs: number }
  /** The connection ended in order, with a command open or not. */
  | { readonly code: 'VFIOUSER_CLOSED'; readonly peer: string; readonly waiting: Command | undefined }
  /** A reply that nobody waits for, or to another command than was asked. */
  | { readonly code: 'VFIOUSER_WRONG_REPLY'; readonly peer: string; readonly id: number; readonly command: number }
  /** A reply that is no answer to its command: more data than asked for, another address ... */
  | {
      readonly code: 'VFIOUSER_BAD_REPLY';
      readonly peer: string;
      readonly command: Command;
      readonly expected: string;
      readonly found: string;
    }
  /** More commands than are served, while we wait for an answer of the peer's. */
  | { readonly code: 'VFIOUSER_FLOODED'; readonly peer: string; readonly commands: number }
  /** No version or limit that both ends can work with. */
  | { readonly code: 'VFIOUSER_VERSION'; readonly peer: string; readonly found: string };

export type VfioUserError = FerryError<VfioUserFault>;

export function vfioUserError(fault: VfioUserFault, cause?: unknown): VfioUserError {
  return new FerryError(fault, `${fault.peer}: ${sentence(fault)}`, cause);
}

/** What is thrown to say no to a command. */
export function refuse(who: string, command: Command, errno: number, cause?: unknown): VfioUserError {
  return vfioUserError({ code: 'VFIOUSER_REFUSED', peer: who, command, errno }, cause);
}

/** Number for an error reply; undefined: a mistake of ours, which is no answer to a peer. */
export function errnoOf(thrown: unknown): number | undefined {
  if (isWireError(thrown)) return ERRNO.EINVAL;
  const { fault } = asError(thrown) as { readonly fault?: { readonly errno?: unknown } };
  return typeof fault?.errno === 'number' ? fault.errno : undefined;
}

function sentence(fault: VfioUserFault): string {
  switch (fault.code) {
    case 'VFIOUSER_REFUSED':
      return `${fault.command} refused (${errnoName(fault.errno)})`;
    case 'VFIOUSER_SILENT':
      return `no answer to ${fault.command} within ${fault.timeoutMs} ms`;
    case 'VFIOUSER_CLOSED':
      return `the peer has closed the connection${fault.waiting === undefined ? '' : ` instead of answering ${fault.waiting}`}`;
    case 'VFIOUSER_WRONG_REPLY':
      return `a reply to command ${fault.command} with id ${fault.id}, which was not asked`;
    case 'VFIOUSER_BAD_REPLY':
      return `reply to ${fault.command}: expected ${fault.expected}, found ${fault.found}`;
    case 'VFIOUSER_FLOODED':
      return `${fault.commands} commands wait to be served while we wait for a reply`;
    case 'VFIOUSER_VERSION':
      return `cannot work with ${fault.found}`;
  }
}
