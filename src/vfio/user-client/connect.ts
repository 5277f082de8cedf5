/** From a path to a link with a server that speaks our version, and what may be sent over it. */
import { asError } from '../../base/index.ts';
import { connect } from '../../transport/index.ts';
import { vfioUser } from '../../wire/index.ts';
import { vfioUserError } from '../user-link/errors.ts';
import { Link } from '../user-link/link.ts';

/** Largest data of a message that we take, bytes. */
export const CLIENT_DATA_BYTES_MAX = 1024 * 1024;

/**
 * Data of a message to a server that takes what one read gives for all of it (libvfio-user, its issue 306), bytes. Up to 36,544 bytes are one
 * buffer of the kernel; what is larger arrives in pieces, sooner or later.
 */
const WHOLE_DATA_BYTES_MAX = 32 * 1024;

export interface ClientTimeouts {
  /** Until the server has accepted the connection, ms. */
  readonly connectMs: number;
  /** Commands that a server answers by itself, ms. */
  readonly commandMs: number;
  /** Commands that take the device's own time: transitions, resets, mappings, migration data, ms. */
  readonly deviceMs: number;
}

export const CLIENT_TIMEOUTS: ClientTimeouts = { connectMs: 10_000, commandMs: 5_000, deviceMs: 60_000 };

export interface Connection {
  readonly link: Link;
  /** Of the server, `0.1`. */
  readonly version: string;
  /** It is a vmferry, and may have features of ours. */
  readonly ours: boolean;
  /** Data of one message, bytes: towards us, towards the server. */
  readonly readBytesMax: number;
  readonly writeBytesMax: number;
}

export interface ConnectionOptions {
  readonly socket: string;
  readonly timeouts: ClientTimeouts;
  /** Serves what the server asks. */
  readonly serve: (message: vfioUser.Message) => Promise<Buffer>;
  /** Gives the attempt up; no power over the connection afterwards. */
  readonly signal?: AbortSignal | undefined;
}

/** Throws TransportError, VfioUserError, WireError; then nothing is left open. */
export async function openConnection({ socket, timeouts, serve, signal }: ConnectionOptions): Promise<Connection> {
  const { connectMs: timeoutMs, commandMs } = timeouts;
  const channel = await connect({ kind: 'unix', path: socket }, { role: 'vfio-user', timeoutMs, signal });
  const link = new Link({ channel, dataBytesMax: CLIENT_DATA_BYTES_MAX, serve });
  const giveUp = () => link.close(new Error('given up', { cause: signal?.reason }));
  signal?.addEventListener('abort', giveUp, { once: true });
  try {
    if (signal?.aborted === true) giveUp();
    return await negotiate(link, commandMs);
  } catch (error) {
    link.close(asError(error));
    throw error;
  } finally {
    signal?.removeEventListener('abort', giveUp);
  }
}

async function negotiate(link: Link, timeoutMs: number): Promise<Connection> {
  const ours = {
    major: vfioUser.PROTOCOL_MAJOR,
    minor: vfioUser.PROTOCOL_MINOR,
    // No descriptors: whoever would send one of its own accord (twin socket) must not.
    capabilities: { maxMsgFds: 0, maxDataXferSize: CLIENT_DATA_BYTES_MAX, splitMessages: true },
  };
  const { major, minor, capabilities = {} } = await link.request('VERSION', ours, timeoutMs, (reply) => reply);
  const refuse = (found: string) => vfioUserError({ code: 'VFIOUSER_VERSION', peer: link.peer, found });
  if (major !== ours.major || minor > ours.minor) throw refuse(`version ${major}.${minor}`);
  if (capabilities.twinSocket?.supported === true) throw refuse('a second socket, which was not offered');
  const dataBytesMax = Math.min(
    capabilities.maxDataXferSize ?? vfioUser.CAPABILITY_DEFAULTS.maxDataXferSize,
    CLIENT_DATA_BYTES_MAX,
  );
  if (dataBytesMax === 0) throw refuse('messages without data');
  return {
    link,
    version: `${major}.${minor}`,
    ours: capabilities.splitMessages === true,
    readBytesMax: dataBytesMax,
    writeBytesMax: capabilities.splitMessages === true ? dataBytesMax : Math.min(dataBytesMax, WHOLE_DATA_BYTES_MAX),
  };
}
