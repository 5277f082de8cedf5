/**
 * QMP client. Greeting, `qmp_capabilities`, then commands with ids; several may be under way.
 * Whatever ends the connection rejects everything that waits, with the same reason.
 * @spec qemu docs/interop/qmp-spec.rst
 */
import { createConnection } from 'node:net';
import type { Duplex } from 'node:stream';
import { asError, FerryError } from '../base/index.ts';
import { type QemuFault, QmpError } from './errors.ts';
import {
  ENDED,
  type QmpArguments,
  type QmpCommandName,
  type QmpEvent,
  type QmpGreeting,
  type QmpMigrationInfo,
  type QmpMigrationStatus,
  type QmpReply,
} from './qmp-commands.ts';
import { type QmpMessage, QmpMessages } from './qmp-messages.ts';

/** How long a command may take unless the caller says otherwise, ms. */
const COMMAND_TIMEOUT_MS = 60_000;
/** query-migrate is asked this often while one waits for a state, ms; MIGRATION events (capability `events`) come sooner. */
const MIGRATION_POLL_MS = 100;

export interface WaitOptions {
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal | undefined;
}

export interface QmpConnectOptions extends WaitOptions {
  /** Asked when the stream has ended: a better reason for it than we have (the peer's death), if there is one. */
  readonly whyEnded?: () => Promise<Error | undefined> | undefined;
}

export interface MigrationWaitOptions extends WaitOptions {
  /** Called with each reply of query-migrate on the way. */
  readonly progress?: (info: QmpMigrationInfo) => void;
}

interface Pending {
  readonly command: string;
  resolve(reply: unknown): void;
  reject(error: Error): void;
}

export class QmpClient {
  /** For people and errors: what this client talks to. */
  readonly label: string;
  /** Settles with the reason once the connection is over. Never rejects. */
  readonly closed: Promise<Error>;

  readonly #stream: Duplex;
  readonly #messages = new QmpMessages();
  readonly #pending = new Map<number, Pending>();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  readonly #onClose = new Set<(reason: Error) => void>();
  #greeting: QmpGreeting | undefined;
  #greeted: ((greeting: QmpGreeting) => void) | undefined;
  #nextId = 1;
  #reason: Error | undefined;

  private constructor(stream: Duplex, label: string, whyEnded: () => Promise<Error | undefined> | undefined) {
    this.#stream = stream;
    this.label = label;
    this.closed = new Promise((resolve) => this.#onClose.add(resolve));
    stream.on('data', (bytes: Buffer) => this.#received(bytes));
    const over = async (error?: Error) => this.#end((await whyEnded()) ?? error);
    stream.on('error', over);
    stream.on('end', over);
    stream.on('close', over);
  }

  /**
   * Connects to a QMP unix socket and negotiates capabilities.
   * Throws QMP_CONNECT_FAILED (nobody there, or the socket serves another client and stays silent), QMP_TIMEOUT, QMP_MALFORMED.
   */
  static async connect(path: string, options: WaitOptions = {}): Promise<QmpClient> {
    return QmpClient.over(createConnection(path), path, options);
  }

  /** The same over any byte stream, such as an inherited socket pair. The client owns the stream from here on. */
  static async over(stream: Duplex, label: string, options: QmpConnectOptions = {}): Promise<QmpClient> {
    const { timeoutMs = 10_000, signal, whyEnded = () => undefined } = options;
    const client = new QmpClient(stream, label, whyEnded);
    try {
      await client.#wait<QmpGreeting>("the peer's greeting", { timeoutMs, signal }, (resolve) => {
        client.#greeted = resolve;
        return () => {};
      });
      await client.execute('qmp_capabilities', undefined, { timeoutMs, signal });
      return client;
    } catch (thrown) {
      client.close();
      const cause = asError(thrown);
      const fault: QemuFault = { code: 'QMP_CONNECT_FAILED', peer: label };
      throw new FerryError(fault, `${label}: no QMP session`, cause);
    }
  }

  get greeting(): QmpGreeting {
    if (this.#greeting === undefined) throw this.#fault('QMP_CLOSED', 'no greeting yet');
    return this.#greeting;
  }

  /** True until the connection has ended. */
  get open(): boolean {
    return this.#reason === undefined;
  }

  /** Runs a command. Throws QmpError if the peer refuses it, QMP_CLOSED if it goes away, QMP_TIMEOUT, QMP_ABORTED. */
  execute<C extends QmpCommandName>(
    command: C,
    ...[args, options]: undefined extends QmpArguments<C>
      ? [args?: QmpArguments<C>, options?: WaitOptions]
      : [args: QmpArguments<C>, options?: WaitOptions]
  ): Promise<QmpReply<C>> {
    return this.executeAny(command, args, options) as Promise<QmpReply<C>>;
  }

  /** Runs a command by any name. Errors as `execute`. */
  executeAny(
    command: string,
    args?: Readonly<Record<string, unknown>>,
    { timeoutMs = COMMAND_TIMEOUT_MS, signal }: WaitOptions = {},
  ): Promise<unknown> {
    return this.#wait(`the reply to ${command}`, { timeoutMs, signal }, (resolve, reject) => {
      const id = this.#nextId++;
      this.#pending.set(id, { command, resolve, reject });
      const request = { execute: command, id, ...(args === undefined ? {} : { arguments: args }) };
      this.#stream.write(JSON.stringify(request) + '\n');
      // The entry of a wait given up stays until its reply comes, so that the late reply is not taken for a stranger's.
      return () => {};
    });
  }

  /** Calls `listener` for each event from now on; returns how to stop. */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** The first event from now on that `matches`. Call it before what causes the event. Throws QMP_CLOSED, QMP_TIMEOUT, QMP_ABORTED. */
  waitForEvent(matches: string | ((event: QmpEvent) => boolean), options: WaitOptions = {}): Promise<QmpEvent> {
    const test = typeof matches === 'string' ? (event: QmpEvent) => event.event === matches : matches;
    const what = typeof matches === 'string' ? `event ${matches}` : 'an event';
    return this.#wait(what, options, (resolve) =>
      this.onEvent((event) => {
        if (test(event)) resolve(event);
      }),
    );
  }

  /**
   * Waits until query-migrate shows one of `wanted` and returns that reply. Throws QMP_MIGRATION_ENDED if the migration ends otherwise,
   * and QMP_CLOSED, QMP_TIMEOUT, QMP_ABORTED.
   */
  async waitForMigration(
    wanted: readonly QmpMigrationStatus[],
    { timeoutMs = 120_000, signal, progress }: MigrationWaitOptions = {},
  ): Promise<QmpMigrationInfo> {
    const deadline = AbortSignal.timeout(timeoutMs);
    for (let last = 'none'; ; ) {
      const info = await this.execute('query-migrate', undefined, { signal });
      last = info.status ?? 'none';
      progress?.(info);
      if ((wanted as readonly string[]).includes(last)) return info;
      if (ENDED.has(last)) {
        const desc = info['error-desc'] ?? '';
        const fault: QemuFault = { code: 'QMP_MIGRATION_ENDED', peer: this.label, status: last, desc };
        throw new FerryError(
          fault,
          `${this.label}: migration is ${last}, not ${wanted.join(' or ')}${desc && `: ${desc}`}`,
        );
      }
      if (deadline.aborted) {
        throw this.#timeout(`migration to be ${wanted.join(' or ')} (it is ${last})`, timeoutMs);
      }
      await this.#nextMigrationEvent(signal);
    }
  }

  /** Ends the connection; the peer goes on. */
  close(reason?: Error): void {
    this.#end(reason ?? new Error('closed here'));
  }

  /** A MIGRATION event or the poll interval, whichever is first. */
  #nextMigrationEvent(signal: AbortSignal | undefined): Promise<void> {
    return this.#wait('a migration event', { signal }, (resolve) => {
      const timer = setTimeout(resolve, MIGRATION_POLL_MS, undefined);
      const off = this.onEvent((event) => {
        if (event.event === 'MIGRATION') resolve(undefined);
      });
      return () => {
        clearTimeout(timer);
        off();
      };
    });
  }

  /** Every wait of this class: ends by `start`'s resolve or reject, the end of the connection, the deadline or the signal. */
  #wait<T>(
    waitingFor: string,
    { timeoutMs, signal }: WaitOptions,
    start: (resolve: (value: T) => void, reject: (error: Error) => void) => () => void,
  ): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (this.#reason !== undefined) return reject(this.#reason);
      if (signal?.aborted === true) return reject(this.#aborted(waitingFor, signal));
      let undo: (() => void) | undefined;
      const settle = () => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', onAbort);
        this.#onClose.delete(fail);
        undo?.();
      };
      const fail = (error: Error) => {
        settle();
        reject(error);
      };
      const onAbort = () => fail(this.#aborted(waitingFor, signal));
      const timer =
        timeoutMs === undefined ? undefined : setTimeout(() => fail(this.#timeout(waitingFor, timeoutMs)), timeoutMs);
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#onClose.add(fail);
      undo = start((value) => {
        settle();
        resolve(value);
      }, fail);
    });
  }

  #received(bytes: Buffer): void {
    for (const message of this.#messages.push(bytes)) {
      if (this.#reason !== undefined) return;
      this.#take(message);
    }
  }

  #take(message: QmpMessage): void {
    switch (message.kind) {
      case 'greeting':
        this.#greeting = message.greeting;
        this.#greeted?.(message.greeting);
        return;
      case 'event':
        for (const listener of this.#listeners) listener(message.event);
        return;
      case 'reply':
        this.#reply(message);
        return;
      case 'malformed':
        this.#end(this.#fault('QMP_MALFORMED', message.why, message.cause));
        return;
    }
  }

  #reply({ id, error, returned, line }: QmpMessage & { readonly kind: 'reply' }): void {
    const pending = typeof id === 'number' ? this.#pending.get(id) : undefined;
    if (pending === undefined) {
      this.#end(this.#fault('QMP_MALFORMED', `reply to nothing that was asked: ${line.slice(0, 200)}`));
      return;
    }
    this.#pending.delete(id as number);
    if (error === undefined) pending.resolve(returned);
    else pending.reject(new QmpError(this.label, pending.command, error.class, error.desc));
  }

  #end(cause?: Error): void {
    if (this.#reason !== undefined) return;
    const named = cause instanceof FerryError ? cause : this.#fault('QMP_CLOSED', 'QMP connection is over', cause);
    this.#reason = named;
    this.#stream.destroy();
    this.#pending.clear();
    this.#listeners.clear();
    for (const fail of [...this.#onClose]) fail(named);
    this.#onClose.clear();
  }

  #fault(code: 'QMP_CLOSED' | 'QMP_MALFORMED', text: string, cause?: unknown): Error {
    return new FerryError<QemuFault>({ code, peer: this.label }, `${this.label}: ${text}`, cause);
  }

  #timeout(waitingFor: string, timeoutMs: number): Error {
    const fault: QemuFault = { code: 'QMP_TIMEOUT', peer: this.label, waitingFor, timeoutMs };
    return new FerryError(fault, `${this.label}: ${waitingFor} did not come within ${timeoutMs} ms`);
  }

  #aborted(waitingFor: string, signal: AbortSignal | undefined): Error {
    const fault: QemuFault = { code: 'QMP_ABORTED', peer: this.label, waitingFor };
    return new FerryError(fault, `${this.label}: stopped waiting for ${waitingFor}`, signal?.reason);
  }
}
