import { fstatSync } from 'node:fs';
import { Socket } from 'node:net';
import { FerryError } from '../base/index.ts';
import { formatAddress } from './address.ts';
import type { Address, Channel } from './channel.ts';
import { type Connection, SocketConnection } from './connection.ts';
import { badAddress, closedHere, refused } from './errors.ts';
import { openExec } from './exec-channel.ts';
import { fileChannelOf, openFileChannel } from './file-channel.ts';
import { SocketChannel } from './socket-channel.ts';
import { SocketRing } from './socket-ring.ts';
import { secure, type TlsTerms } from './tls/handshake.ts';

export interface ConnectOptions {
  /** Aborting it gives the attempt up; it has no power over the channel afterwards. */
  readonly signal?: AbortSignal | undefined;
  /** First word of the channel's label: main, multifd 3, ... */
  readonly role?: string | undefined;
  /** For sockets: how long to wait for the peer, ms. */
  readonly timeoutMs?: number | undefined;
  /** A session on these terms, or no connection; undefined: clear text. */
  readonly tls?: TlsTerms | undefined;
}

export const CONNECT_TIMEOUT_MS = 30_000;

/** No waiting for more to send, and a link whose other side vanished without a word is found dead after some minutes of silence. */
export const TCP_OPTIONS = { noDelay: true, keepAlive: true, keepAliveInitialDelay: 30_000 } as const;

/** The outgoing end of `address`. Throws TransportError: refused, timeout, address, TLS, or closed if `signal` aborts. */
export async function connect(address: Address, options: ConnectOptions = {}): Promise<Channel> {
  if (isSocketAddress(address)) return (await dial(address, options)).channel(options.role);
  if (options.tls === undefined) return connectInClear(address, options);
  const channel = await connectInClear(address, options);
  if (channel.duplex) return (await secure(channel, options.tls, options)).channel(options.role);
  channel.destroy();
  throw badAddress(formatAddress(address), `there is no TLS over ${address.kind}: that goes one way only`);
}

async function connectInClear(address: Exclude<Address, SocketAddress>, options: ConnectOptions): Promise<Channel> {
  switch (address.kind) {
    case 'fd':
      options.signal?.throwIfAborted();
      return openDescriptor(address.fd, 'write', channelLabel(address, options.role));
    case 'exec':
      options.signal?.throwIfAborted();
      return openExec(address, channelLabel(address, options.role));
    case 'file':
      options.signal?.throwIfAborted();
      return openFileChannel(address, 'write', channelLabel(address, options.role));
  }
}

/** An address where any number of connections can be made. */
export type SocketAddress = Extract<Address, { kind: 'tcp' | 'unix' }>;

export function isSocketAddress(address: Address): address is SocketAddress {
  return address.kind === 'tcp' || address.kind === 'unix';
}

/** A connection that nobody reads yet. Throws as `connect`. */
export async function dial(address: SocketAddress, options: ConnectOptions = {}): Promise<Connection> {
  options.signal?.throwIfAborted();
  const connection = await connectSocket(address, targetOf(address), options);
  if (options.tls === undefined) return connection;
  return await secure(connection.channel(options.role), options.tls, options, address);
}

function targetOf(address: SocketAddress): Target {
  if (address.kind === 'unix') return { path: address.path };
  const { host, port } = address;
  if (host === '') throw badAddress(formatAddress(address), 'connecting wants a host');
  return { host, port };
}

/** `connect` of a socket that exists takes no such options: it ignores them without a word. */
function applyTcpOptions(socket: Socket): void {
  socket.setNoDelay(TCP_OPTIONS.noDelay);
  socket.setKeepAlive(TCP_OPTIONS.keepAlive, TCP_OPTIONS.keepAliveInitialDelay);
}

export function channelLabel(address: Address, role = 'main'): string {
  return `${role} ${formatAddress(address)}`;
}

type Target = { host: string; port: number } | { path: string };

function connectSocket(address: SocketAddress, target: Target, options: ConnectOptions): Promise<SocketConnection> {
  const { signal, timeoutMs = CONNECT_TIMEOUT_MS } = options;
  const label = channelLabel(address, options.role);
  const ring = new SocketRing();
  const socket = new Socket(ring.socketOptions);
  // Whoever gets the connection decides who reads it.
  socket.pause();
  return new Promise((resolve, reject) => {
    const giveUp = (error: Error) => {
      settle();
      socket.on('error', () => {});
      socket.destroy();
      reject(error);
    };
    const onError = (error: Error) => giveUp(refused(label, error));
    const onAbort = () => giveUp(closedHere({ channel: label, bytesRead: 0, bytesWritten: 0 }, signal?.reason));
    const onTimeout = () =>
      giveUp(
        new FerryError(
          { code: 'TRANSPORT_TIMEOUT', channel: label, timeoutMs },
          `${label}: no connection within ${timeoutMs} ms`,
        ),
      );
    const onConnect = () => {
      settle();
      if ('port' in target) applyTcpOptions(socket);
      resolve(new SocketConnection(formatAddress(address), socket, ring));
    };
    const timer = setTimeout(onTimeout, timeoutMs);
    const settle = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      socket.off('error', onError);
      socket.off('connect', onConnect);
    };
    signal?.addEventListener('abort', onAbort, { once: true });
    socket.once('error', onError);
    socket.once('connect', onConnect);
    socket.connect(target);
  });
}

/** A descriptor this process inherited: a connected socket, a pipe, or a file. The channel owns it from now on. */
export function openDescriptor(fd: number, direction: 'read' | 'write', label: string): Channel {
  try {
    const stats = fstatSync(fd);
    if (stats.isFile()) return fileChannelOf(fd, true, direction, label);
    const duplex = stats.isSocket();
    if (!duplex && !stats.isFIFO()) throw badAddress(`fd:${fd}`, 'is neither a socket nor a pipe nor a file');
    const ring = new SocketRing();
    const readable = duplex || direction === 'read';
    const writable = duplex || direction === 'write';
    const socket = new Socket({ ...ring.socketOptions, fd, readable, writable });
    return new SocketChannel(label, {
      input: readable ? socket : undefined,
      output: writable ? socket : undefined,
      ring,
    });
  } catch (error) {
    throw refused(label, error, 'cannot use the descriptor');
  }
}
