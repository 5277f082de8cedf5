/** Threads that have loaded their code and wait for what they are to do. Loading costs as much as moving some 60 MB: it need not be while a guest waits. */
import { SHARE_ENV, Worker, type WorkerOptions } from 'node:worker_threads';
import { type Control, controlOf, STOP, signal, Word } from './control-words.ts';
import type { ThreadStart } from './messages.ts';

const THREAD: WorkerOptions = {
  execArgv: [],
  env: SHARE_ENV,
  // It allocates next to nothing; without limits each thread would keep a young generation of its own size. V8 counts guest memory that the thread has
  // views of, and collects at once, view after view, when that is more than half of the old generation's limit, which costs nothing by itself.
  resourceLimits: { maxYoungGenerationSizeMb: 2, maxOldGenerationSizeMb: 1 << 20 },
  // It is given a descriptor and closes it: nothing that Node should warn of.
  trackUnmanagedFds: false,
};

/** What a thread does; its file. */
const ENTRIES = {
  send: new URL('./send-thread.js', import.meta.url),
  receive: new URL('./receive-thread.js', import.meta.url),
  copy: new URL('./copy-thread.js', import.meta.url),
};

export class ReadyThread {
  readonly control: Control = controlOf();
  readonly worker: Worker;
  /** Settles when the thread is gone; with what it crashed of. */
  readonly exited: Promise<Error | undefined>;

  /** It does not keep the process alive before it is started. */
  constructor(kind: keyof typeof ENTRIES, name: string) {
    this.worker = new Worker(ENTRIES[kind], { ...THREAD, name, workerData: this.control.shared });
    this.worker.unref();
    let crash: Error | undefined;
    this.worker.on('error', (error) => {
      crash = error;
    });
    this.exited = new Promise((resolve) => this.worker.once('exit', () => resolve(crash)));
  }

  /** Once. What is given is copied; shared memory stays shared. */
  start(start: ThreadStart): void {
    this.worker.ref();
    this.worker.postMessage(start);
    Atomics.store(this.control.words, Word.STARTED, 1);
    signal(this.control.words);
  }

  /** It is not needed after all. */
  dismiss(): void {
    Atomics.store(this.control.words, Word.STOP, STOP.NOW);
    signal(this.control.words);
  }
}
