/**
 * Postcopy driven from outside: the source is told to go over to it after some rounds, and when the connection breaks both ends are told to make
 * another one. From the moment in which it is told, nothing here takes the guest back: it may run at the destination.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { asError, explain } from '../base/index.ts';
import { reachable } from './destination.ts';
import { PorcelainError } from './errors.ts';
import { figuresOf, GONE, type GuestState, type MigrationFigures, type Outcome } from './outcome.ts';
import { isLive, type Peer } from './peer.ts';

/** Connections in a row that brought nothing; then people have to look. */
const ATTEMPTS_MAX = 5;
/** Before the second of them, and so much longer before each further one, ms. */
const RETRY_MS = 250;
/** For a destination to see that its connection is lost, and for a source to leave postcopy-paused, ms. */
const NOTICE_MS = 15_000;
const POLL_MS = 50;

const HOW_TO_GO_ON =
  'The guest runs on the destination, but part of its memory is still on the source only: END NEITHER OF THEM. To go on, make the ' +
  "destination listen with the QMP command 'migrate-recover' (uri), then tell the source 'migrate' with the same uri and resume: true.";
const LOST =
  'One of the two processes is gone, and with it what only it had: the source the memory that had not been sent, the destination what the ' +
  'guest has done since it left.';

export interface PostcopyOptions {
  /** Rounds of precopy in front; 0: at once; undefined: the source knows by itself when. */
  readonly afterRounds?: number;
  /** Something happened that people may want to know. */
  readonly notice?: ((text: string) => void) | undefined;
}

/** Who sends, as it is steered from here. What is thrown is why it was refused. */
export interface SendingEnd {
  startPostcopy(): Promise<void>;
  /** Over a new connection to that URI. */
  resume(uri: string): Promise<void>;
  isPaused(): Promise<boolean>;
  state(): Promise<GuestState>;
}

/** A process that sends. */
export function sendingPeer(peer: Peer): SendingEnd {
  return {
    startPostcopy: async () => void (await peer.execute('migrate-start-postcopy')),
    resume: async (uri) => void (await peer.execute('migrate', { uri, resume: true })),
    isPaused: async () => (await peer.execute('query-migrate')).status === 'postcopy-paused',
    state: () => peer.state(),
  };
}

export interface PostcopyEnds {
  readonly source: SendingEnd;
  /** Undefined: it cannot be asked, so what breaks stays broken. */
  readonly destination: Peer | undefined;
  /** Where the destination shall listen next. */
  readonly nextUri: () => string;
  readonly signal?: AbortSignal | undefined;
}

export class PostcopyDriver {
  readonly #options: PostcopyOptions;
  readonly #ends: PostcopyEnds;
  #begun: boolean;
  #strandedBy: Error | undefined;
  #arrived = false;
  #attempts = 0;
  /** Bytes sent when the last attempt was made. */
  #sent = 0;
  /** Where the destination listens, or listened last, for a source that resumes. */
  #target: string | undefined;

  constructor(options: PostcopyOptions, ends: PostcopyEnds) {
    this.#options = options;
    this.#ends = ends;
    this.#begun = options.afterRounds === undefined;
  }

  /** The source was told: it is too late to cancel. */
  get begun(): boolean {
    return this.#begun;
  }

  /** Nothing more can be done here; `outcome` says what is. */
  get over(): boolean {
    return this.#arrived || this.#strandedBy !== undefined;
  }

  /** Why it cannot go on, if it cannot. */
  get failure(): PorcelainError | undefined {
    return this.#strandedBy && this.#cannotGoOn(this.#strandedBy);
  }

  /** Somebody wants it to end. */
  tooLate(): void {
    this.#options.notice?.(
      'The guest runs on the destination already and cannot be taken back: the migration goes on until all of its memory is there. ' +
        'Once more leaves it to the two processes, which go on by themselves as long as nothing breaks.',
    );
  }

  /** Does what the source's state asks for. Throws what QMP throws. */
  async look(info: MigrationFigures): Promise<void> {
    const { source } = this.#ends;
    const { afterRounds = 0, notice } = this.#options;
    if (!this.#begun) {
      if (info.status !== 'active' || (info.ram?.['dirty-sync-count'] ?? 0) <= afterRounds) return;
      this.#begun = true;
      await source.startPostcopy();
      return;
    }
    if (info.status !== 'postcopy-paused') return;
    const sent = info.ram?.transferred ?? 0;
    // Whoever has sent pages has had a connection that worked: a few kilobytes are what a recovery itself takes.
    if (sent > this.#sent + 100_000) this.#attempts = 0;
    this.#sent = sent;
    notice?.(`The connection broke (${info['error-desc'] ?? 'no reason given'}): making another one.`);
    await this.#recover();
  }

  /**
   * How it ended, when it is `over` or the source could not be asked any more (`failure`). Undefined: as any other migration, the guest being here or
   * there with all of its memory.
   */
  async outcome(figures: MigrationFigures, failure: Error | undefined): Promise<Outcome | undefined> {
    const { source, destination } = this.#ends;
    const error = this.#strandedBy ?? failure;
    if (!this.#begun || (error === undefined && !this.#arrived)) return undefined;
    const there = await destination?.state();
    const base = {
      ...figuresOf(figures),
      source: await source.state(),
      ...(there === undefined ? {} : { destination: there }),
    };
    if (this.#arrived || (await this.#hasAll())) {
      const message = `The guest is ${there} on the destination with all of its memory. Only the source has not heard of it: it can be ended.`;
      return { ...base, status: 'completed', message };
    }
    if (error === undefined || isLive(base.source) || there === 'inmigrate') return undefined;
    return {
      ...base,
      status: 'failed',
      error: this.#cannotGoOn(error),
      message: there === GONE || base.source === GONE ? LOST : HOW_TO_GO_ON,
    };
  }

  #cannotGoOn(error: Error): PorcelainError {
    const fault = { code: 'POSTCOPY_PAUSED', attempts: this.#attempts } as const;
    return new PorcelainError(fault, `a postcopy cannot go on: ${explain(error)}`, error);
  }

  async #hasAll(): Promise<boolean> {
    const info = await this.#ends.destination?.execute('query-migrate').catch(() => undefined);
    return info?.status === 'completed';
  }

  async #recover(): Promise<void> {
    const { destination, signal } = this.#ends;
    if (destination === undefined) {
      this.#strandedBy = new Error('the destination cannot be asked from here');
      return;
    }
    if (this.#attempts > 0) await pause(this.#attempts * RETRY_MS, undefined, { signal }).catch(() => {});
    if (signal?.aborted === true) {
      this.#strandedBy = asError(signal.reason);
      return;
    }
    this.#attempts++;
    try {
      if (await this.#ready(destination)) await this.#connect(destination);
      else this.#arrived = true;
    } catch (thrown) {
      const gone = (await destination.state()) === GONE;
      if (gone || this.#attempts >= ATTEMPTS_MAX) this.#strandedBy = asError(thrown);
      else this.#options.notice?.(`That failed: ${explain(thrown)}`);
    }
  }

  /** Returns when the destination is paused too; false if it has everything. */
  async #ready(destination: Peer): Promise<boolean> {
    const endMs = performance.now() + NOTICE_MS;
    for (let told = false; ; ) {
      const { status = 'none', 'error-desc': why } = await destination.execute('query-migrate');
      if (status === 'completed') return false;
      if (status === 'postcopy-paused') return true;
      if (status === 'failed' || performance.now() > endMs) {
        const desc = why ?? '';
        const message = `${destination.path}: it must be postcopy-paused to go on, and is ${status}${desc && `: ${desc}`}`;
        throw new PorcelainError({ code: 'PEER_MIGRATION', peer: destination.path, status, desc }, message);
      }
      // A link that is dead without a word shows on one side only. Refused means that it has noticed meanwhile.
      if (!told) await destination.execute('migrate-pause').catch(() => {});
      told = true;
      await pause(POLL_MS);
    }
  }

  async #connect(destination: Peer): Promise<void> {
    const { source } = this.#ends;
    const uri = this.#ends.nextUri();
    try {
      await destination.execute('migrate-recover', { uri });
      this.#target = await reachable(destination, uri);
    } catch (error) {
      // A QEMU that waits already refuses another address.
      if (this.#target === undefined) throw error;
    }
    await source.resume(this.#target);
    const endMs = performance.now() + NOTICE_MS;
    while ((await source.isPaused()) && performance.now() < endMs) await pause(POLL_MS);
  }
}
