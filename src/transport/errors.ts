import { FerryError } from '../base/index.ts';

/** Where a channel stood when it failed: bytes the application had read and the kernel had taken. */
export interface ChannelPosition {
  readonly channel: string;
  readonly bytesRead: number;
  readonly bytesWritten: number;
}

export type TransportFault =
  /** The text is no address, or its kind cannot do what is asked. */
  | { readonly code: 'TRANSPORT_ADDRESS'; readonly address: string }
  /** Nobody there, or the local end cannot be opened: `errno` is the system's name (ECONNREFUSED, ENOENT, EADDRINUSE ...). */
  | { readonly code: 'TRANSPORT_REFUSED'; readonly channel: string; readonly errno: string }
  | { readonly code: 'TRANSPORT_TIMEOUT'; readonly channel: string; readonly timeoutMs: number }
  /** The peer or the link went away without an orderly end. */
  | (ChannelPosition & { readonly code: 'TRANSPORT_RESET'; readonly errno: string })
  /** This side closed the channel (or the listener) itself. */
  | (ChannelPosition & { readonly code: 'TRANSPORT_CLOSED' })
  | (ChannelPosition & { readonly code: 'TRANSPORT_IO'; readonly errno: string })
  /** A folder of TLS credentials cannot be used, for the reason in the message; `file` is what is wrong in it, '' if it is about none. */
  | { readonly code: 'TRANSPORT_TLS_CREDENTIALS'; readonly dir: string; readonly file: string }
  /** One side does not take the other for who it should be, or they have no way in common. */
  | { readonly code: 'TRANSPORT_TLS_HANDSHAKE'; readonly channel: string; readonly reason: string }
  /** The session was broken off by an alert, or by bytes that are no record of it. */
  | (ChannelPosition & { readonly code: 'TRANSPORT_TLS'; readonly reason: string })
  /** The connection ended and the session did not: what was to come may have been cut off by anybody. */
  | (ChannelPosition & { readonly code: 'TRANSPORT_TLS_CUT' })
  /** The command of an exec: channel did not end with status 0. */
  | {
      readonly code: 'TRANSPORT_EXEC';
      readonly channel: string;
      readonly status: number | undefined;
      readonly signal: string | undefined;
    };

export type TransportError = FerryError<TransportFault>;

export function isTransportError(thrown: unknown): thrown is TransportError {
  return thrown instanceof FerryError && thrown.code.startsWith('TRANSPORT_');
}

/** The system's name of an error, e.g. ECONNRESET; `unknown` for an error that has none. */
export function errnoOf(thrown: unknown): string {
  return thrown instanceof Error && 'code' in thrown && typeof thrown.code === 'string' ? thrown.code : 'unknown';
}

const SUDDEN_DEATH = new Set(['ECONNRESET', 'EPIPE', 'ECONNABORTED', 'ENOTCONN', 'ETIMEDOUT']);

/** What a failed read or write of an open channel means. */
export function channelFailure(at: ChannelPosition, thrown: unknown): TransportError {
  if (isTransportError(thrown)) return thrown;
  const errno = errnoOf(thrown);
  const where = `${at.bytesRead} bytes read, ${at.bytesWritten} written`;
  return SUDDEN_DEATH.has(errno)
    ? new FerryError(
        { code: 'TRANSPORT_RESET', ...at, errno },
        `${at.channel}: connection lost (${errno}) after ${where}`,
      )
    : new FerryError(
        { code: 'TRANSPORT_IO', ...at, errno },
        `${at.channel}: i/o error ${errno} after ${where}`,
        thrown,
      );
}

export function closedHere(at: ChannelPosition, reason?: unknown): TransportError {
  const where = `${at.bytesRead} bytes read, ${at.bytesWritten} written`;
  return new FerryError({ code: 'TRANSPORT_CLOSED', ...at }, `${at.channel}: closed here after ${where}`, reason);
}

/** Opening failed: nobody listens, no such file, port in use ... */
export function refused(channel: string, thrown: unknown, doing = 'cannot connect'): TransportError {
  if (isTransportError(thrown)) return thrown;
  const errno = errnoOf(thrown);
  return new FerryError({ code: 'TRANSPORT_REFUSED', channel, errno }, `${channel}: ${doing} (${errno})`, thrown);
}

export function badAddress(address: string, why: string): TransportError {
  return new FerryError({ code: 'TRANSPORT_ADDRESS', address }, `address '${address}': ${why}`);
}
