/**
 * The QMP server of a process. Its socket is as mighty as the process itself: a unix socket only its owner may open, or a
 * port on loopback.
 */
import { lstatSync, unlinkSync } from 'node:fs';
import { connect, createServer, isIP, type Server, type Socket } from 'node:net';
import { asError } from '../base/index.ts';
import type { Host, HostEvent } from '../migration/index.ts';
import { type Command, type CommandContext, commandTable } from './command.ts';
import { COMMANDS } from './commands/index.ts';
import { listenError } from './errors.ts';
import { Session } from './session.ts';

/** Clients at a time; a further one is turned away. */
const SESSIONS_MAX = 64;
/** How long a socket file may take to show whether somebody listens on it, ms. */
const PROBE_MS = 2000;

export type QmpAddress =
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number };

export interface QmpServerOptions {
  readonly host: Host;
  readonly address: QmpAddress;
  /** Commands of this process beside those every process has. */
  readonly commands?: readonly Command[];
}

export class QmpServer {
  /** Where clients connect, with the real port if 0 was asked for. */
  readonly address: QmpAddress;
  readonly #server: Server;
  readonly #sessions = new Set<Session>();
  readonly #context: CommandContext;
  readonly #stopEvents: () => void;
  #closed: Promise<void> | undefined;
  #beginClosing: () => void = () => {};

  private constructor(server: Server, { host, address, commands = [] }: QmpServerOptions) {
    this.#server = server;
    const bound = server.address();
    this.address =
      address.kind === 'tcp' && typeof bound === 'object' && bound !== null
        ? { ...address, port: bound.port }
        : address;
    const closing = new Promise<void>((resolve) => {
      this.#beginClosing = resolve;
    });
    this.#context = { host, commands: commandTable([...COMMANDS, ...commands]), closing };
    this.#stopEvents = host.onEvent((event) => this.#event(event));
    server.on('connection', (socket) => this.#accept(socket));
    server.on('error', () => {}); // A client that could not be accepted; the next one may be.
  }

  /** Listens. A socket file that nobody listens on any more is replaced. Throws QMP_LISTEN. */
  static async listen(options: QmpServerOptions): Promise<QmpServer> {
    const { address } = options;
    const server = createServer({ allowHalfOpen: true });
    if (address.kind === 'unix') await listenUnix(server, address.path);
    else await listenTcp(server, address.host, address.port);
    return new QmpServer(server, options);
  }

  /** Takes no more clients and requests, answers what is under way, removes the socket file. Never throws. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.#stopEvents();
    this.#beginClosing();
    const stopped = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    await Promise.all([...this.#sessions].map((session) => session.close()));
    await stopped;
  }

  #accept(socket: Socket): void {
    if (this.#closed !== undefined || this.#sessions.size >= SESSIONS_MAX) {
      socket.destroy();
      return;
    }
    const session = new Session(socket, this.#context);
    this.#sessions.add(session);
    void session.closed.then(() => this.#sessions.delete(session));
  }

  #event(event: HostEvent): void {
    const now = Date.now();
    const timestamp = { seconds: Math.floor(now / 1000), microseconds: (now % 1000) * 1000 };
    for (const session of this.#sessions) session.event({ timestamp, ...event });
  }
}

async function listenUnix(server: Server, path: string): Promise<void> {
  try {
    await bindUnix(server, path);
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException;
    if (code !== 'EADDRINUSE') throw listenError(path, asError(thrown).message, thrown);
    if (!isSocket(path)) throw listenError(path, 'there is a file of that name, and it is not a socket');
    if (await isAlive(path)) throw listenError(path, 'another process listens there');
    unlinkSync(path);
    await bindUnix(server, path).catch((again) => {
      throw listenError(path, asError(again).message, again);
    });
  }
}

function bindUnix(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    // The file is made inside listen(): with this mask it is never open to others, not even for a moment.
    const umask = process.umask(0o177);
    try {
      server.once('error', reject).listen({ path }, () => {
        server.off('error', reject);
        resolve();
      });
    } finally {
      process.umask(umask);
    }
  });
}

function isSocket(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isSocket() === true;
}

/** Whether a process listens on the socket; one that does not answer in time counts as alive. */
function isAlive(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path, timeout: PROBE_MS });
    const decide = (alive: boolean) => {
      socket.destroy();
      resolve(alive);
    };
    socket.once('connect', () => decide(true));
    socket.once('timeout', () => decide(true));
    socket.once('error', (error: NodeJS.ErrnoException) => decide(error.code !== 'ECONNREFUSED'));
  });
}

async function listenTcp(server: Server, host: string, port: number): Promise<void> {
  if (!isLoopback(host))
    throw listenError(`${host}:${port}`, 'only loopback addresses are allowed: QMP knows no passwords');
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => reject(listenError(`${host}:${port}`, error.message, error)));
    server.listen({ host, port }, resolve);
  });
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}
