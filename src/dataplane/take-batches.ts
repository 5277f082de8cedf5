/** What threads do that get batches: take them out of the ring, one after another, until they are told to stop. */
import { BATCH, type BatchRing, SYNC, slotOf } from './batch-ring.ts';
import { type Control, STOP, Word } from './control-words.ts';
import { sayMoved } from './run-thread.ts';

/** `batch`: what is done with a batch; `sync`: at a SYNC, when all before it is done. */
export function takeBatches(
  ring: BatchRing,
  { words }: Control,
  batch: (slot: Uint32Array) => void,
  sync: () => void,
): void {
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
    const isSync = slot[BATCH.BLOCK] === SYNC;
    if (isSync) sync();
    else batch(slot);
    done = (done + 1) | 0;
    Atomics.store(words, Word.DONE, done);
    if (isSync) Atomics.add(words, Word.SYNCS, 1);
    if (isSync || hasWantedRoom(words, done)) sayMoved();
  }
}

/** WANTED is loaded first: what main has published before it was stored is counted, so main hears when its own count agrees. */
function hasWantedRoom(words: Int32Array, done: number): boolean {
  const wanted = Atomics.load(words, Word.WANTED);
  if (wanted < 0 || ((Atomics.load(words, Word.PUBLISHED) - done) | 0) > wanted) return false;
  return Atomics.compareExchange(words, Word.WANTED, wanted, -1) === wanted;
}
