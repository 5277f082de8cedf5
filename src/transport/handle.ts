/**
 * What net.Socket does not offer, done on its handle. `_handle` is no documented API; it has been the same since Node 0.10 and the contract
 * tests hold it (checked on Node 20).
 */
import { readSync } from 'node:fs';
import { Socket, type SocketConstructorOpts } from 'node:net';
import { asError, assert } from '../base/index.ts';
import { errnoOf } from './errors.ts';

interface Owner {
  _handle: { readonly fd?: number } | null;
}

/**
 * A socket made by a server or for a child process, made anew with `options`: only at its making can a socket be told to read into our own
 * buffers. It is paused. `given` must not have delivered bytes yet; it is dead afterwards.
 */
export function adoptSocket(given: Socket, options: SocketConstructorOpts): Socket {
  const owner = given as unknown as Owner;
  const handle = owner._handle;
  assert(handle !== null && handle !== undefined, 'a socket without a handle cannot be adopted');
  owner._handle = null;
  given.destroy();
  return new Socket({ ...options, handle, pauseOnCreate: true } as SocketConstructorOpts);
}

/**
 * Why the bytes of `socket` have ended, if it was no orderly end. When a reset arrives together with the last bytes, libuv reports an
 * end of file (uv__stream_io, POLLHUP after a partial read) and leaves the error in the kernel, where one more read finds it.
 */
export function errorBehindEnd(socket: Socket): Error | undefined {
  const fd = (socket as unknown as Owner)._handle?.fd;
  if (fd === undefined || fd < 0) return undefined;
  try {
    readSync(fd, Buffer.alloc(1), 0, 1, null);
    return undefined;
  } catch (error) {
    return errnoOf(error) === 'EAGAIN' ? undefined : asError(error);
  }
}
