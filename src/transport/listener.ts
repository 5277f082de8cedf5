import { readFileSync } from 'node:fs';
import { lstat, unlink } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { resolve as resolvePath } from 'node:path';
import { formatAddress } from './address.ts';
import type { Address, Channel, Listener } from './channel.ts';
import { channelLabel, openDescriptor, type SocketAddress, TCP_OPTIONS } from './connect.ts';
import { type Connection, FIRST_BYTES_MAX, SocketConnection } from './connection.ts';
import { badAddress, closedHere, refused } from './errors.ts';
import { openExec } from './exec-channel.ts';
import { openFileChannel } from './file-channel.ts';
import { adoptSocket } from './handle.ts';
import { SocketRing } from './socket-ring.ts';
import type { TlsTerms } from './tls/handshake.ts';
import { TlsListener } from './tls/tls-listener.ts';

/** Peers that wait to be accepted; more are turned away. A migration has at most 255 multifd channels, main and preempt. */
const WAITING_MAX = 300;

export interface ListenOptions {
  /** Aborting it closes the listener. */
  readonly signal?: AbortSignal | undefined;
  readonly role?: string | undefined;
  /** Only peers that come to a session on these terms are given; undefined: all, in clear text. */
  readonly tls?: TlsTerms | undefined;
  /** How long a peer may take to come to a session, ms. */
  readonly timeoutMs?: number | undefined;
}

/** The incoming end of `address`. fd:, exec: and file: have one peer, given by the first accept. Throws TransportError. */
export async function listen(address: Address, options: ListenOptions = {}): Promise<Listener> {
  if (options.tls === undefined) return listenInClear(address, options);
  if (address.kind === 'file') throw badAddress(formatAddress(address), 'there is no TLS over a file');
  return new TlsListener(await listenInClear(address, options), { ...options, tls: options.tls });
}

/**
 * Whether machines of other people may connect there: over a network, and not of this machine only. Without TLS the guest's memory is anybody's who
 * can listen or come first.
 */
export function isExposed(address: Address): boolean {
  if (address.kind !== 'tcp') return false;
  return !/^(localhost|127(\.\d{1,3}){3}|::1|::ffff:127(\.\d{1,3}){3})$/i.test(address.host);
}

async function listenInClear(address: Address, options: ListenOptions): Promise<Listener> {
  const label = channelLabel(address, options.role);
  options.signal?.throwIfAborted();
  switch (address.kind) {
    case 'tcp':
      return SocketListener.open(address, label, options);
    case 'unix':
      await removeStaleSocket(address.path, label);
      return SocketListener.open(address, label, options);
    case 'fd':
      return new SingleListener(address, label, openDescriptor(address.fd, 'read', label), options.signal);
    case 'exec':
      return new SingleListener(address, label, await openExec(address, label), options.signal);
    case 'file':
      return new SingleListener(address, label, await openFileChannel(address, 'read', label), options.signal);
  }
}

interface Waiter {
  resolve(connection: Connection): void;
  reject(error: Error): void;
}

class SocketListener implements Listener {
  readonly address: Address;
  readonly #label: string;
  readonly #role: string | undefined;
  readonly #server: Server;
  readonly #arrived: Socket[] = [];
  readonly #waiters: Waiter[] = [];
  #closed: Error | undefined;

  static async open(address: SocketAddress, label: string, options: ListenOptions): Promise<Listener> {
    const server = createServer({
      pauseOnConnect: true,
      allowHalfOpen: true,
      ...(address.kind === 'tcp' ? TCP_OPTIONS : {}),
    });
    await new Promise<void>((resolve, reject) => {
      server.once('error', (error) => reject(refused(label, error, 'cannot listen')));
      if (address.kind === 'unix') server.listen(address.path, resolve);
      else server.listen({ port: address.port, ...(address.host === '' ? {} : { host: address.host }) }, resolve);
    });
    return new SocketListener(address, label, options, server);
  }

  private constructor(address: SocketAddress, label: string, options: ListenOptions, server: Server) {
    this.#label = label;
    this.#role = options.role;
    this.#server = server;
    const bound = server.address();
    this.address =
      address.kind === 'tcp' && typeof bound === 'object' && bound !== null
        ? { ...address, port: bound.port }
        : address;
    server.on('connection', (socket) => this.#arrive(socket));
    server.on('error', (error) => this.#close(refused(label, error, 'cannot accept')));
    options.signal?.addEventListener('abort', () => this.#close(this.#closedError(options.signal?.reason)), {
      once: true,
    });
    if (options.signal?.aborted) this.#close(this.#closedError(options.signal.reason));
  }

  async accept(signal?: AbortSignal): Promise<Channel> {
    return (await this.next(signal)).channel(this.#role);
  }

  async next(signal?: AbortSignal): Promise<Connection> {
    if (this.#closed !== undefined) throw this.#closed;
    if (signal?.aborted) throw this.#closedError(signal.reason);
    const socket = this.#arrived.shift();
    if (socket !== undefined) return this.#adopt(socket);
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        this.#waiters.splice(this.#waiters.indexOf(waiter), 1);
        reject(this.#closedError(signal?.reason));
      };
      const done = () => signal?.removeEventListener('abort', onAbort);
      const waiter: Waiter = {
        resolve: (connection) => {
          done();
          resolve(connection);
        },
        reject: (error) => {
          done();
          reject(error);
        },
      };
      this.#waiters.push(waiter);
      signal?.addEventListener('abort', onAbort, { once: true });
    });
  }

  close(): void {
    this.#close(this.#closedError());
  }

  #arrive(socket: Socket): void {
    // A peer that is gone again before it is accepted shows when its channel is read.
    socket.on('error', () => {});
    const waiter = this.#waiters.shift();
    if (waiter !== undefined) waiter.resolve(this.#adopt(socket));
    else if (this.#arrived.length < WAITING_MAX) this.#arrived.push(socket);
    else socket.destroy();
  }

  #adopt(given: Socket): Connection {
    const { remoteAddress: host, remotePort: port } = given;
    const from: Address = host === undefined || port === undefined ? this.address : { kind: 'tcp', host, port };
    const ring = new SocketRing(FIRST_BYTES_MAX);
    return new SocketConnection(formatAddress(from), adoptSocket(given, ring.socketOptions), ring);
  }

  #close(reason: Error): void {
    if (this.#closed !== undefined) return;
    this.#closed = reason;
    this.#server.close();
    for (const socket of this.#arrived.splice(0)) socket.destroy();
    for (const waiter of this.#waiters.splice(0)) waiter.reject(reason);
  }

  #closedError(reason?: unknown): Error {
    return closedHere({ channel: this.#label, bytesRead: 0, bytesWritten: 0 }, reason);
  }
}

/** A "listener" whose one peer is there already. */
class SingleListener implements Listener {
  readonly address: Address;
  readonly #label: string;
  #channel: Channel | undefined;

  constructor(address: Address, label: string, channel: Channel, signal: AbortSignal | undefined) {
    this.address = address;
    this.#label = label;
    this.#channel = channel;
    signal?.addEventListener('abort', () => this.close(), { once: true });
    if (signal?.aborted) this.close();
  }

  async next(): Promise<never> {
    throw badAddress(formatAddress(this.address), 'has one peer only');
  }

  async accept(): Promise<Channel> {
    const channel = this.#channel;
    if (channel === undefined)
      throw closedHere({ channel: this.#label, bytesRead: 0, bytesWritten: 0 }, new Error('it has no further peer'));
    this.#channel = undefined;
    return channel;
  }

  close(): void {
    this.#channel?.destroy();
    this.#channel = undefined;
  }
}

/**
 * Unlinks a socket nobody listens on any more, as QEMU does; anything else at `path` stays. The kernel's table is asked instead of
 * the socket itself: a test connection would be taken for a migration by a QEMU that waits there.
 */
async function removeStaleSocket(path: string, label: string): Promise<void> {
  const stats = await lstat(path).catch(() => undefined);
  if (stats === undefined) return;
  if (!stats.isSocket()) throw badAddress(`unix:${path}`, 'a file that is no socket is in the way');
  if (isListening(path))
    throw refused(label, Object.assign(new Error('in use'), { code: 'EADDRINUSE' }), 'cannot listen');
  await unlink(path).catch((error) => {
    throw refused(label, error, 'cannot remove the stale socket');
  });
}

/** Lines of /proc/net/unix end in the bound path; flag 00010000 marks a listening socket. */
function isListening(path: string): boolean {
  let table: string;
  try {
    table = readFileSync('/proc/net/unix', 'latin1');
  } catch {
    return false;
  }
  const wanted = new Set([path, resolvePath(path)]);
  return table.split('\n').some((line) => {
    const fields = line.trim().split(/\s+/);
    return fields[3] === '00010000' && wanted.has(Buffer.from(fields.slice(7).join(' '), 'latin1').toString());
  });
}
