/**
 * Threads that have loaded their code and wait for what they are to do. Loading costs as much as moving some 100 MB, and what is to be moved waits
 * for it: so they are made ready before, and kept by the process until somebody takes them.
 */
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

export type ThreadKind = keyof typeof ENTRIES;
export const THREAD_KINDS: readonly ThreadKind[] = ['send', 'receive', 'copy'];

/** Each takes some megabytes; more than so many are started when they are wanted. */
const SPARE_MAX = 16;

const spare: Record<ThreadKind, Set<ReadyThread>> = { send: new Set(), receive: new Set(), copy: new Set() };

/** Longest wait for a thread when the process ends, ms. */
const BINDING_MS = 5_000;

const alive = new Set<ReadyThread>();

/**
 * A process that exits waits for its threads, and they may wait in the kernel for a peer: they are stopped. One that is ended while the library for system
 * calls is bound takes the process down with it (SIGABRT), as no exception can be thrown any more: that is waited for.
 */
function stopAll(): void {
  for (const thread of alive) thread.stop();
  for (const { control } of alive) Atomics.wait(control.words, Word.BINDING, 1, BINDING_MS);
}

/** From now on so many threads are ready, up to 16; 0 lets those go that nobody has taken. They do not keep the process alive. */
export function prepareThreads(kind: ThreadKind, count: number): void {
  const ready = spare[kind];
  const wanted = Math.min(count, SPARE_MAX);
  for (const thread of ready) {
    if (ready.size <= wanted) break;
    ready.delete(thread);
    thread.dismiss();
  }
  while (ready.size < wanted) {
    const thread = new ReadyThread(kind);
    ready.add(thread);
    void thread.exited.then(() => ready.delete(thread));
  }
}

/** A thread that is ready, or else a new one; the caller's from here on: it is started or dismissed. */
export function takeThread(kind: ThreadKind): ReadyThread {
  for (const thread of spare[kind]) {
    spare[kind].delete(thread);
    return thread;
  }
  return new ReadyThread(kind);
}

export class ReadyThread {
  readonly control: Control = controlOf();
  readonly worker: Worker;
  /** Settles when the thread is gone; with what it crashed of. */
  readonly exited: Promise<Error | undefined>;
  /** Ends it; whoever has started it may have to end more than the wait for words. */
  stop: () => void = () => this.dismiss();

  /** It does not keep the process alive before it is started. */
  constructor(kind: ThreadKind) {
    this.worker = new Worker(ENTRIES[kind], { ...THREAD, name: `vmferry ${kind}`, workerData: this.control.shared });
    this.worker.unref();
    if (alive.size === 0) process.on('exit', stopAll);
    alive.add(this);
    let crash: Error | undefined;
    this.worker.on('error', (error) => {
      crash = error;
    });
    this.exited = new Promise((resolve) => {
      this.worker.once('exit', () => {
        alive.delete(this);
        if (alive.size === 0) process.off('exit', stopAll);
        resolve(crash);
      });
    });
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
