import { FerryError } from '../../base/index.ts';
import type { ChannelPosition, TransportError } from '../errors.ts';

/** A file of a credentials folder, or what is asked of the credentials, is wrong. `file`: its name in the folder, '' if it is about none. */
export function badCredentials(dir: string, file: string, why: string, cause?: unknown): TransportError {
  const at = file === '' ? dir : `${dir}/${file}`;
  return new FerryError({ code: 'TRANSPORT_TLS_CREDENTIALS', dir, file }, `TLS credentials ${at}: ${why}`, cause);
}

/** No session came about: nothing of a guest has been sent or believed. */
export function notTrusted(channel: string, reason: string, cause?: unknown): TransportError {
  return new FerryError({ code: 'TRANSPORT_TLS_HANDSHAKE', channel, reason }, `${channel}: TLS: ${reason}`, cause);
}

export function sessionFailed(at: ChannelPosition, reason: string): TransportError {
  const where = `after ${at.bytesRead} bytes read, ${at.bytesWritten} written`;
  return new FerryError({ code: 'TRANSPORT_TLS', ...at, reason }, `${at.channel}: TLS: ${reason}, ${where}`);
}

export function cutOff(at: ChannelPosition): TransportError {
  const where = `after ${at.bytesRead} bytes read, ${at.bytesWritten} written`;
  return new FerryError(
    { code: 'TRANSPORT_TLS_CUT', ...at },
    `${at.channel}: the connection ended ${where}, but its TLS session did not: it was cut off, or the peer gave up`,
  );
}
