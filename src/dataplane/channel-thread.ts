/** One channel's thread as the main thread holds it. */
import { closeSync } from 'node:fs';
import { closeLine, duplicate, type Line, shutdownConnection } from '../native/index.ts';
import { type Control, Counter, DESCRIPTOR, STOP, signal, Word } from './control-words.ts';
import type { FromChannel, ThreadStart } from './messages.ts';
import type { ReadyThread } from './ready-thread.ts';

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
  #isAlive = true;

  /**
   * Starts `thread`. `line`: its connection; without one it waits for our words only. Takes both over, also when it throws
   * (NATIVE_UNAVAILABLE, NATIVE_CALL).
   */
  constructor(thread: ReadyThread, start: ThreadStart & { readonly line?: Line }, reports: ChannelReports) {
    this.channel = start.channel;
    this.name = start.name;
    this.control = thread.control;
    Atomics.store(this.control.words, Word.WANTED, -1);
    const { line } = start;
    if (line !== undefined) {
      try {
        this.#twin = duplicate(line.fd);
      } catch (thrown) {
        closeLine(line);
        thread.dismiss();
        throw thrown;
      }
    }
    thread.stop = () => this.stopNow();
    thread.worker.on('message', (message: FromChannel) => reports.said(message));
    this.joined = thread.exited.then((crash) => {
      this.#isAlive = false;
      const open = Atomics.load(this.control.words, Word.DESCRIPTOR) !== DESCRIPTOR.CLOSED;
      if (line !== undefined && open) closeLine(line);
      reports.gone(crash);
    });
    thread.start(start);
  }

  get isAlive(): boolean {
    return this.#isAlive;
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
