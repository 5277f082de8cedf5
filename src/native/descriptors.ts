/**
 * Descriptors of sockets as threads share them out: a number goes to another thread, never a socket object; whoever needs the connection
 * too gets a duplicate, and each owner closes its own. All throw NATIVE_UNAVAILABLE, NATIVE_CALL.
 */
import { constants } from 'node:fs';
import type { Socket } from 'node:net';
import { failedWith } from './errors.ts';
import { checked, needLibc } from './libc.ts';

const F_GETFL = 3;
const F_SETFL = 4;
const F_DUPFD_CLOEXEC = 1030;
const MSG_PEEK = 0x02;
const MSG_DONTWAIT = 0x40;
/** The three standard streams are never taken. */
const FD_MIN = 3;

const NEED = 'parallel channels';

/** Another number for the same connection; not inherited by child processes. */
export function duplicate(fd: number): number {
  const libc = needLibc(NEED);
  return checked(libc, 'fcntl F_DUPFD_CLOEXEC', () => libc.fcntl(fd, F_DUPFD_CLOEXEC, 'int', FD_MIN));
}

/** Of the connection, so for all its duplicates: whether reads and writes wait in the kernel. */
export function setBlocking(fd: number, blocking: boolean): void {
  const libc = needLibc(NEED);
  const flags = checked(libc, 'fcntl F_GETFL', () => libc.fcntl(fd, F_GETFL, 'int', 0));
  const wanted = blocking ? flags & ~constants.O_NONBLOCK : flags | constants.O_NONBLOCK;
  if (wanted !== flags) checked(libc, 'fcntl F_SETFL', () => libc.fcntl(fd, F_SETFL, 'int', wanted));
}

/**
 * Takes the connection away from Node's socket, which is dead afterwards; the connection lives on under the number returned. The socket
 * must not be reading (pauseOnConnect, paused since it was made, or stopped), or those bytes are lost.
 *
 * `_handle` is no documented API; it has been the same since Node 0.10 and a test holds it (checked on Node 20).
 */
export function takeDescriptor(socket: Socket): number {
  const handle = (socket as unknown as { readonly _handle: { readonly fd: number } | null })._handle;
  const fd = duplicate(handle?.fd ?? -1);
  socket.destroy();
  return fd;
}

const HOW = { read: 0, write: 1, both: 2 } as const;

/**
 * Ends a direction of the connection, whoever owns its duplicates: threads that wait in the kernel for it wake up. Reads still get what
 * has arrived, then an orderly end; writes fail with EPIPE. A connection that is gone already is no error.
 */
export function shutdownConnection(fd: number, how: keyof typeof HOW): void {
  const libc = needLibc(NEED);
  try {
    checked(libc, 'shutdown', () => libc.shutdown(fd, HOW[how]));
  } catch (thrown) {
    if (!failedWith(thrown, 'ENOTCONN')) throw thrown;
  }
}

/** Bits of poll(2). */
export const POLL = { IN: 0x001, OUT: 0x004, ERR: 0x008, HUP: 0x010, RDHUP: 0x2000 } as const;

/** What has happened of `events` (and ERR, HUP), 0 after `timeoutMs` of nothing; -1 waits for ever. Blocks the thread. */
export function poll(fd: number, events: number, timeoutMs: number): number {
  const libc = needLibc(NEED);
  const pollfd = Buffer.from(new ArrayBuffer(8));
  pollfd.writeInt32LE(fd, 0);
  pollfd.writeInt16LE(events, 4);
  const address = libc.address(pollfd);
  checked(libc, 'poll', () => libc.poll(address, 1, timeoutMs));
  return pollfd.readUInt16LE(6);
}

/** Up to `length` bytes that have arrived, which stay to be read; undefined if there is nothing yet, empty at the end. Never waits. */
export function peek(fd: number, length: number): Buffer | undefined {
  const libc = needLibc(NEED);
  const bytes = Buffer.from(new ArrayBuffer(length));
  const address = libc.address(bytes);
  try {
    return bytes.subarray(
      0,
      checked(libc, 'recv', () => libc.recv(fd, address, length, MSG_PEEK | MSG_DONTWAIT)),
    );
  } catch (thrown) {
    if (failedWith(thrown, 'EAGAIN')) return undefined;
    throw thrown;
  }
}
