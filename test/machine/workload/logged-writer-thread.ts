/** A test double of a vCPU: writes pages in turn and marks them dirty after the store, or before it as it must not be. */
import { workerData } from 'node:worker_threads';
import { markDirty } from '../../../src/machine/workload/dirty-log.ts';

export interface LoggedWriterStart {
  readonly order: 'store-first' | 'mark-first';
  readonly memory: SharedArrayBuffer;
  readonly log: SharedArrayBuffer;
  /** [0]: 1 = stop; [1]: writes done; [2]: harvests done. */
  readonly control: SharedArrayBuffer;
}

const start = workerData as LoggedWriterStart;
const words = new Int32Array(start.memory);
const log = new Int32Array(start.log);
const control = new Int32Array(start.control);
const pageCount = start.memory.byteLength / 4096;

/** Until a harvest, and the copying after it, has come between. */
function awaitHarvest(): void {
  const rounds = Atomics.load(control, 2);
  while (Atomics.load(control, 0) === 0 && Atomics.load(control, 2) === rounds) Atomics.wait(control, 2, rounds, 100);
}

for (let write = 0; Atomics.load(control, 0) === 0; write++) {
  const page = write % pageCount;
  if (start.order === 'mark-first') {
    markDirty(log, page);
    awaitHarvest();
  }
  words[page * 1024]!++;
  if (start.order === 'store-first') {
    awaitHarvest();
    markDirty(log, page);
  }
  Atomics.add(control, 1, 1);
}
