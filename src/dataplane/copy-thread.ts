/** Entry of a copying thread: the pages of its batches go where they belong by themselves. At a SYNC all before it is done. */
import { workerData } from 'node:worker_threads';
import { batchRingOf } from './batch-ring.ts';
import { copyBatch, copyState } from './copy-loop.ts';
import type { CopyStart } from './messages.ts';
import { runChannelThread } from './run-thread.ts';
import { takeBatches } from './take-batches.ts';

const start = workerData as CopyStart;

runChannelThread(start, (control) => {
  const state = copyState(start, control.counters);
  const ring = batchRingOf(start.from.pageSize, start.ring);
  takeBatches(
    ring,
    control,
    (slot) => copyBatch(state, slot),
    () => {},
  );
});
