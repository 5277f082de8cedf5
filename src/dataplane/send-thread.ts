/** Entry of a sending thread: takes batches out of its ring, one after another, until it is told to stop. */
import { workerData } from 'node:worker_threads';
import { BATCH, type BatchRing, batchRingOf, SYNC, slotOf } from './batch-ring.ts';
import { type Control, STOP, Word } from './control-words.ts';
import type { SendStart } from './messages.ts';
import { runChannelThread, sayMoved } from './run-thread.ts';
import { type SendState, sendBatch, sendState, sendSync } from './send-loop.ts';

const start = workerData as SendStart;

runChannelThread(start, (control) => {
  const state = sendState(start, control.counters);
  try {
    sendBatches(state, batchRingOf(start.ram.pageSize, start.ring), control);
  } finally {
    state.encoder?.close();
  }
});

function sendBatches(state: SendState, ring: BatchRing, { words }: Control): void {
  for (let done = 0; ; ) {
    const signal = Atomics.load(words, Word.SIGNAL);
    const stop = Atomics.load(words, Word.STOP);
    const waiting = (Atomics.load(words, Word.PUBLISHED) - done) | 0;
    if (stop === STOP.NOW || (stop === STOP.AT_END && waiting === 0)) return;
    if (waiting === 0) {
      Atomics.wait(words, Word.SIGNAL, signal);
      continue;
    }
    const slot = slotOf(ring, done >>> 0);
    const sync = slot[BATCH.BLOCK] === SYNC;
    if (sync) sendSync(state);
    else sendBatch(state, slot);
    done = (done + 1) | 0;
    Atomics.store(words, Word.DONE, done);
    if (sync) Atomics.add(words, Word.SYNCS, 1);
    if (sync || hasWantedRoom(words, done)) sayMoved();
  }
}

/** WANTED is loaded first: what main has published before it was stored is counted, so main hears when its own count agrees. */
function hasWantedRoom(words: Int32Array, done: number): boolean {
  const wanted = Atomics.load(words, Word.WANTED);
  if (wanted < 0 || ((Atomics.load(words, Word.PUBLISHED) - done) | 0) > wanted) return false;
  return Atomics.compareExchange(words, Word.WANTED, wanted, -1) === wanted;
}
