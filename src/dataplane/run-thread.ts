/** What both kinds of channel threads do around their loops: take the descriptor, tell main how it ends, give the descriptor back. */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { closeLine, loadNative, nameThread, setBlocking, threadId } from '../native/index.ts';
import { type Control, Counter, controlOf, DESCRIPTOR, STOP, Word } from './control-words.ts';
import { channelError } from './errors.ts';
import type { ChannelStart, FromChannel, ThreadStart } from './messages.ts';

export function say(message: FromChannel): void {
  parentPort?.postMessage(message);
}

const control = controlOf(workerData as SharedArrayBuffer);

/** Waits for what the thread is to do; undefined: nothing. */
export function awaitStart<T extends ThreadStart>(): T | undefined {
  const { words } = control;
  // First the word, then the look: a process that ends does it the other way round, so one of the two sees the other.
  Atomics.store(words, Word.BINDING, 1);
  if (Atomics.load(words, Word.STOP) !== STOP.NOW) loadNative();
  Atomics.store(words, Word.BINDING, 0);
  Atomics.notify(words, Word.BINDING);
  for (;;) {
    const signal = Atomics.load(words, Word.SIGNAL);
    if (Atomics.load(words, Word.STOP) === STOP.NOW) return undefined;
    // Main posts first.
    if (Atomics.load(words, Word.STARTED) === 1) return receiveMessageOnPort(parentPort!)!.message as T;
    Atomics.wait(words, Word.SIGNAL, signal);
  }
}

const MOVED: FromChannel = { kind: 'moved' };

/** Main looks at the words again. */
export function sayMoved(): void {
  say(MOVED);
}

/**
 * `loop` gets the shared words; what it throws ends the channel, unless main has asked for the end. Without `line` the thread has no
 * connection of its own.
 */
export function runChannelThread(
  start: ThreadStart & Partial<Pick<ChannelStart, 'line' | 'offset' | 'compression'>>,
  loop: (control: Control) => void,
): void {
  const { line, compression = 'none' } = start;
  const { words, counters } = control;
  Atomics.store(words, Word.DESCRIPTOR, DESCRIPTOR.THREADS);
  Atomics.store(words, Word.THREAD_ID, threadId());
  counters[Counter.BYTES] = start.offset ?? 0;
  try {
    nameThread(start.name);
    if (line !== undefined) setBlocking(line.fd, true);
    say({ kind: 'started' });
    loop(control);
  } catch (thrown) {
    if (Atomics.load(words, Word.STOP) === STOP.NOW) return;
    const place = { channel: start.channel, offset: counters[Counter.BYTES]! };
    const { fault, message, cause } = channelError(thrown, place, compression);
    say({ kind: 'failed', fault, message, cause: cause instanceof Error ? cause.message : undefined });
  } finally {
    if (line !== undefined) closeLine(line);
    Atomics.store(words, Word.DESCRIPTOR, DESCRIPTOR.CLOSED);
  }
}
