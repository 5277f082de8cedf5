/** One channel's thread as the main thread holds it. */
import { closeSync } from 'node:fs';
import { SHARE_ENV, Worker, type WorkerOptions } from 'node:worker_threads';
import { closeLine, duplicate, type Line, shutdownConnection } from '../native/index.ts';
import { type Control, Counter, controlOf, DESCRIPTOR, STOP, signal, Word } from './control-words.ts';
import type { FromChannel } from './messages.ts';

const THREAD: WorkerOptions = {
  execArgv: [],
  env: SHARE_ENV,
  // It allocates next to nothing; without limits each thread would keep a young generation of its own size. V8 counts guest memory that the thread has
  // views of, and collects at once, view after view, when that is more than half of the old generation's limit, which costs nothing by itself.
  resourceLimits: { maxYoungGenerationSizeMb: 2, maxOldGenerationSizeMb: 1 << 20 },
  // It is given a descriptor and closes it: nothing that Node should warn of.
  trackUnmanagedFds: false,
};

const living = new Set<ChannelThread>();

/** A process that exits waits for its threads, and they may wait in the kernel for a peer: they are woken. */
function wakeAll(): void {
  for (const thread of living) thread.stopNow();
}

export interface ChannelReports {
  said(message: FromChannel): void;
  /** The thread is gone, and both descriptors with it; `error` if it crashed. */
  gone(error: Error | undefined): void;
}

export interface ChannelCounters {
  /** Initial packet included. */
  readonly bytes: number;
  readonly packets: number;
  readonly normalPages: number;
  readonly zeroPages: number;
  /** Of device state, bytes without headers. */
  readonly stateBytes: number;
}

export class ChannelThread {
  readonly channel: number;
  readonly name: string;
  readonly control: Control;
  /** Settles when the thread is joined and its descriptor closed. */
  readonly joined: Promise<void>;
  /** A duplicate of its connection, for waking the thread, whatever it waits for; -1: it has none. */
  #twin = -1;

  /**
   * `entry`: the thread's file. `line`: its connection; without one it waits for our words only. Takes `line` over, also when it throws
   * (NATIVE_UNAVAILABLE, NATIVE_CALL).
   */
  constructor(
    entry: URL,
    start: { readonly channel: number; readonly name: string; readonly line?: Line },
    more: (control: SharedArrayBuffer) => object,
    reports: ChannelReports,
  ) {
    this.channel = start.channel;
    this.name = start.name;
    this.control = controlOf();
    Atomics.store(this.control.words, Word.WANTED, -1);
    const { line } = start;
    if (line !== undefined) {
      try {
        this.#twin = duplicate(line.fd);
      } catch (thrown) {
        closeLine(line);
        throw thrown;
      }
    }
    const workerData = { ...start, ...more(this.control.shared) };
    const worker = new Worker(entry, { ...THREAD, name: start.name, workerData });
    if (living.size === 0) process.on('exit', wakeAll);
    living.add(this);
    let crash: Error | undefined;
    worker.on('message', (message: FromChannel) => reports.said(message));
    worker.on('error', (error) => {
      crash = error;
    });
    this.joined = new Promise((resolve) => {
      worker.once('exit', () => {
        living.delete(this);
        if (living.size === 0) process.off('exit', wakeAll);
        const open = Atomics.load(this.control.words, Word.DESCRIPTOR) !== DESCRIPTOR.CLOSED;
        if (line !== undefined && open) closeLine(line);
        reports.gone(crash);
        resolve();
      });
    });
  }

  get isAlive(): boolean {
    return living.has(this);
  }

  get threadId(): number {
    return Atomics.load(this.control.words, Word.THREAD_ID);
  }

  get counters(): ChannelCounters {
    const { counters } = this.control;
    return {
      bytes: counters[Counter.BYTES]!,
      packets: counters[Counter.PACKETS]!,
      normalPages: counters[Counter.NORMAL_PAGES]!,
      zeroPages: counters[Counter.ZERO_PAGES]!,
      stateBytes: counters[Counter.STATE_BYTES]!,
    };
  }

  get syncs(): number {
    return Atomics.load(this.control.words, Word.SYNCS);
  }

  /** Ends what the thread waits for, in the kernel and here. The connection is dead for both peers. */
  stopNow(): void {
    Atomics.store(this.control.words, Word.STOP, STOP.NOW);
    signal(this.control.words);
    if (this.#twin >= 0) shutdownConnection(this.#twin, 'both');
  }

  /** Sender: ends when its ring is empty. Receiver: lets every SYNC go and takes no pages any more, up to the peer's end. */
  stopAtEnd(): void {
    Atomics.compareExchange(this.control.words, Word.STOP, STOP.NOT, STOP.AT_END);
    signal(this.control.words);
  }

  /** The thread reads what has arrived, and ends. */
  stopReceiving(): void {
    this.stopAtEnd();
    if (this.#twin >= 0) shutdownConnection(this.#twin, 'read');
  }

  /** Closes main's side of the connection; with the thread joined, the connection. Idempotent. */
  close(): void {
    if (this.#twin >= 0) closeSync(this.#twin);
    this.#twin = -1;
  }
}
