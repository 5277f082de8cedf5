import { setTimeout as pause } from 'node:timers/promises';
import { type QmpArguments, QmpClient, type QmpCommandName, type QmpReply } from '../qemu/index.ts';
import { wrongPeerState } from './errors.ts';
import { GONE, type GuestState, UNKNOWN } from './outcome.ts';

/** Time for one answer about where a guest is, ms. */
const ANSWER_MS = 5_000;
/** A process that ends closes its sockets first: so long it may take until nobody listens any more, ms. */
const GONE_MS = 10_000;
const RETRY_MS = 100;

/** Run states in which the machine has not arrived. */
const NOT_HERE: ReadonlySet<GuestState> = new Set(['inmigrate', GONE, UNKNOWN]);

/** A process, QEMU or vmferry, at the other end of its QMP socket. */
export class Peer {
  readonly path: string;
  #qmp: QmpClient;

  private constructor(path: string, qmp: QmpClient) {
    this.path = path;
    this.#qmp = qmp;
  }

  static async connect(path: string, signal?: AbortSignal): Promise<Peer> {
    return new Peer(path, await QmpClient.connect(path, { signal }));
  }

  execute<C extends QmpCommandName>(
    command: C,
    ...args: undefined extends QmpArguments<C> ? [args?: QmpArguments<C>] : [args: QmpArguments<C>]
  ): Promise<QmpReply<C>> {
    return this.#qmp.executeAny(command, args[0]) as Promise<QmpReply<C>>;
  }

  /**
   * Where the guest stands, asked now: its RunState; GONE if provably nobody is there any more (the connection is over and the socket
   * refuses another); UNKNOWN if nobody answers.
   */
  async state(): Promise<GuestState> {
    const deadline = performance.now() + GONE_MS;
    do {
      try {
        if (!this.#qmp.open) this.#qmp = await QmpClient.connect(this.path, { timeoutMs: ANSWER_MS });
        const { status } = await this.#qmp.execute('query-status', undefined, { timeoutMs: ANSWER_MS });
        return status;
      } catch (error) {
        if (this.#qmp.open) return UNKNOWN;
        if (nobodyListens(error)) return GONE;
        await pause(RETRY_MS);
      }
    } while (performance.now() < deadline);
    return UNKNOWN;
  }

  /** Whether its guest is at work. Throws PEER_STATE if it has none, as it waits for a migration itself; `what`: is to be done with it. */
  async expectGuest(what: 'send' | 'save'): Promise<boolean> {
    const { status } = await this.execute('query-status');
    if (status === 'inmigrate') {
      const message = `the process waits for a migration itself: it has no guest to ${what}`;
      throw wrongPeerState(this.path, 'a guest', status, message);
    }
    return isLive(status);
  }

  /** Throws PEER_STATE unless the process waits for an incoming migration that nobody has begun. */
  async expectWaiting(): Promise<void> {
    const { status } = await this.execute('query-status');
    if (status !== 'inmigrate') {
      const message = `the process must wait for a migration (-incoming defer), but its guest is ${status}`;
      throw wrongPeerState(this.path, 'inmigrate', status, message);
    }
  }

  close(): void {
    this.#qmp.close();
  }
}

/** Whether a machine that was awaited is there now, running or not. */
export function hasArrived(state: GuestState): boolean {
  return !NOT_HERE.has(state);
}

/** Whether the machine is at work there: it runs, or sleeps (ACPI S3) until one of its devices wakes it. */
export function isLive(state: GuestState | undefined): boolean {
  return state === 'running' || state === 'suspended';
}

/** The system's word that a unix socket has no listener: the process that had it is gone. */
function nobodyListens(thrown: unknown): boolean {
  for (let at: unknown = thrown; at instanceof Error; at = at.cause) {
    if ('code' in at && (at.code === 'ECONNREFUSED' || at.code === 'ENOENT')) return true;
  }
  return false;
}
