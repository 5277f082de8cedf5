/** Entry of a copying thread: the pages of its batches go where they belong by themselves. At a SYNC all before it is done. */
import { batchRingOf } from './batch-ring.ts';
import type { Control } from './control-words.ts';
import { copyBatch, copyState } from './copy-loop.ts';
import type { CopyStart } from './messages.ts';
import { awaitStart, runChannelThread } from './run-thread.ts';
import { takeBatches } from './take-batches.ts';

const start = awaitStart<CopyStart>();
if (start !== undefined) runChannelThread(start, (control) => copy(start, control));

function copy(start: CopyStart, control: Control): void {
  const state = copyState(start, control.counters);
  const ring = batchRingOf(start.from.pageSize, start.ring);
  takeBatches(
    ring,
    control,
    (slot) => copyBatch(state, slot),
    () => {},
  );
}
