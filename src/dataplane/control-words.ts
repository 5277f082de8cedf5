/**
 * The memory that the main thread and one channel's thread share, and who may write what:
 *
 *     words[SIGNAL]      main: changes with every order; the thread sleeps on it
 *     words[STOP]        main: see STOP
 *     words[PUBLISHED]   main: batches put into the ring since the start (mod 2^32)
 *     words[DONE]        thread: batches whose bytes the kernel has taken
 *     words[WANTED]      main: the thread says 'room' when no more than this many batches wait; -1: not wanted. The thread resets it
 *     words[SYNCS]       thread: SYNC packets sent, or reached
 *     words[RELEASED]    main: SYNC packets that the receiving thread may go past
 *     words[THREAD_ID]   thread, once
 *     words[DESCRIPTOR]  thread: see DESCRIPTOR
 *     words[STARTED]     main, once: what the thread is to do has been posted
 *     words[BINDING]     thread: 1 while it binds system calls; the process must not end it then
 *     counters           thread
 *
 * Orders are seen in time by this argument: main first stores what is ordered, then changes SIGNAL and notifies. The thread first loads
 * SIGNAL, then looks for orders, then sleeps unless SIGNAL has changed since. An order that its look has missed was stored after the
 * look, so SIGNAL changes after the thread has loaded it and the sleep ends, or does not begin.
 *
 * What a thread did to memory before it stored SYNCS or DONE (sequentially consistent) is seen by whoever has loaded that value.
 */
export const Word = {
  SIGNAL: 0,
  STOP: 1,
  PUBLISHED: 2,
  DONE: 3,
  WANTED: 4,
  SYNCS: 5,
  RELEASED: 6,
  THREAD_ID: 7,
  DESCRIPTOR: 8,
  STARTED: 9,
  BINDING: 10,
} as const;

export const STOP = {
  NOT: 0,
  /** Sender: when the ring is empty. Receiver: no more pages may come, all that does come is read to its end. */
  AT_END: 1,
  NOW: 2,
} as const;

/** Whose the thread's descriptor is: what a thread that crashed has left open is main's to close. */
export const DESCRIPTOR = { MAINS: 0, THREADS: 1, CLOSED: 2 } as const;

/** Float64 each, exact below 2^53. */
export const Counter = {
  /** Of the channel, initial packet included. */
  BYTES: 0,
  PACKETS: 1,
  NORMAL_PAGES: 2,
  ZERO_PAGES: 3,
  /** Of devices, headers not included. */
  STATE_BYTES: 4,
} as const;

export const WORDS = 16;
const COUNTERS = 8;
const CONTROL_BYTES = WORDS * 4 + COUNTERS * 8;

export interface Control {
  readonly shared: SharedArrayBuffer;
  readonly words: Int32Array;
  readonly counters: Float64Array;
}

export function controlOf(shared = new SharedArrayBuffer(CONTROL_BYTES)): Control {
  return {
    shared,
    words: new Int32Array(shared, 0, WORDS),
    counters: new Float64Array(shared, WORDS * 4, COUNTERS),
  };
}

/** Main: wakes the thread for what was stored before. */
export function signal(words: Int32Array): void {
  Atomics.add(words, Word.SIGNAL, 1);
  Atomics.notify(words, Word.SIGNAL);
}
