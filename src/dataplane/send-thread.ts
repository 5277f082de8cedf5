/** Entry of a sending thread: batches become packets. */
import { workerData } from 'node:worker_threads';
import { batchRingOf } from './batch-ring.ts';
import type { SendStart } from './messages.ts';
import { runChannelThread } from './run-thread.ts';
import { sendBatch, sendState, sendSync } from './send-loop.ts';
import { takeBatches } from './take-batches.ts';

const start = workerData as SendStart;

runChannelThread(start, (control) => {
  const state = sendState(start, control.counters);
  const ring = batchRingOf(start.ram.pageSize, start.ring);
  try {
    takeBatches(
      ring,
      control,
      (slot) => sendBatch(state, slot),
      () => sendSync(state),
    );
  } finally {
    state.encoder?.close();
  }
});
