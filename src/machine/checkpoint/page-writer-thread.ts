/** Thread that takes pages out of a PageQueue and writes them to the file, neighbours together. Started by PageWriter. */
import { writeSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { type FromPageWriter, type PageWriterStart, STOP, Word } from './page-queue.ts';

/** Pages of one write at most, bytes: more gains nothing, and less waits for the newest. */
const RUN_BYTES_MAX = 1024 * 1024;

const { queue, fd } = workerData as PageWriterStart;
const { control, offsets, data, pageSize } = queue;
const slots = offsets.length;
const runMax = Math.min(slots, RUN_BYTES_MAX / pageSize);

try {
  writePages();
} catch (thrown) {
  const error = thrown as NodeJS.ErrnoException;
  Atomics.store(control, Word.FAILED, error.errno ?? 1);
  Atomics.notify(control, Word.WRITTEN);
  say('failed');
}

function writePages(): void {
  let written = 0;
  for (;;) {
    // Read before the work is looked for: an order that comes after changes it, and the sleep below does not happen.
    const signal = Atomics.load(control, Word.SIGNAL);
    const stop = Atomics.load(control, Word.STOP);
    const waiting = (Atomics.load(control, Word.PUBLISHED) - written) | 0;
    if (stop === STOP.NOW || (stop === STOP.WHEN_EMPTY && waiting === 0)) return;
    if (waiting === 0) {
      Atomics.wait(control, Word.SIGNAL, signal);
      continue;
    }
    written = (written + writeRun(written, waiting)) | 0;
    Atomics.store(control, Word.WRITTEN, written);
    Atomics.notify(control, Word.WRITTEN);
    const wanted = Atomics.load(control, Word.WANTED);
    const left = (Atomics.load(control, Word.PUBLISHED) - written) | 0;
    if (wanted >= 0 && left <= wanted && Atomics.compareExchange(control, Word.WANTED, wanted, -1) === wanted) {
      say('low');
    }
  }
}

/** Writes the first pages that wait, as far as they are neighbours in the ring and in the file; returns how many. */
function writeRun(first: number, waiting: number): number {
  const slot = (first & 0x7fffffff) % slots;
  const offset = offsets[slot]!;
  const most = Math.min(waiting, slots - slot, runMax);
  let count = 1;
  while (count < most && offsets[slot + count] === offset + count * pageSize) count++;
  const from = slot * pageSize;
  const length = count * pageSize;
  for (let done = 0; done < length; ) done += writeSync(fd, data, from + done, length - done, offset + done);
  return count;
}

function say(message: FromPageWriter): void {
  parentPort?.postMessage(message);
}
