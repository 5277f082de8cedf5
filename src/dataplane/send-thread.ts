/** Entry of a sending thread: batches, and buffers of device state, become packets. */
import { BATCH, batchRingOf, STATE } from './batch-ring.ts';
import { type Control, STOP, Word } from './control-words.ts';
import { sendStateBuffer, stateSenderOf } from './device-state/send-state.ts';
import type { SendStart } from './messages.ts';
import { awaitStart, runChannelThread } from './run-thread.ts';
import { sendBatch, sendState, sendSync } from './send-loop.ts';
import { takeBatches } from './take-batches.ts';

const start = awaitStart<SendStart>();
if (start !== undefined) runChannelThread(start, (control) => send(start, control));

function send(start: SendStart, control: Control): void {
  const state = sendState(start, control.counters);
  const sender = start.state && stateSenderOf(start.state.devices, start.state.arena);
  const ring = batchRingOf(start.ram.pageSize, start.ring);
  try {
    takeBatches(
      ring,
      control,
      (slot) => {
        if (slot[BATCH.BLOCK] === STATE) sendStateBuffer(sender!, state, slot);
        else sendBatch(state, slot);
      },
      () => sendSync(state),
    );
    if (Atomics.load(control.words, Word.STOP) === STOP.AT_END) state.line.end();
  } finally {
    state.encoder?.close();
  }
}
