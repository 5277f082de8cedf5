/**
 * net.Socket reads into our own buffers only if it is told so when it is made, but sockets of servers and of child processes
 * are made by Node. Their handle moves to a new socket that is made our way.
 *
 * `_handle` is no documented API; it has been the same since Node 0.10 and the contract tests hold it (checked on Node 20).
 */
import { Socket, type SocketConstructorOpts } from 'node:net';
import { assert } from '../base/index.ts';

interface Owner {
  _handle: object | null;
}

/** `given` must not have delivered bytes yet; it is dead afterwards. */
export function adoptSocket(given: Socket, options: SocketConstructorOpts): Socket {
  const owner = given as unknown as Owner;
  const handle = owner._handle;
  assert(handle !== null && handle !== undefined, 'a socket without a handle cannot be adopted');
  owner._handle = null;
  given.destroy();
  return new Socket({ ...options, handle } as SocketConstructorOpts);
}
