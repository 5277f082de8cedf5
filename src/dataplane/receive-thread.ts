/** Entry of a receiving thread: packet by packet to the end of the channel; parks at each SYNC until main lets it go on. */
import { type Control, Counter, STOP, Word } from './control-words.ts';
import { openLoader } from './device-state/loader.ts';
import { stateReceiverOf } from './device-state/receive-state.ts';
import { StateQueue } from './device-state/state-queue.ts';
import { channelLabel, dataplaneError } from './errors.ts';
import type { ReceiveStart } from './messages.ts';
import { RECEIVED, type Receiver, receivePacket, receiverOf } from './receive-loop.ts';
import { awaitStart, runChannelThread, say, sayMoved } from './run-thread.ts';

const start = awaitStart<ReceiveStart>();
if (start !== undefined) {
  const loaders = await Promise.all(
    (start.state?.loaders ?? []).map((module) => (module === undefined ? undefined : openLoader(module))),
  );
  runChannelThread(start, (control) => receive(start, loaders, control));
}

function receive(start: ReceiveStart, loaders: Parameters<typeof stateReceiverOf>[1], control: Control): void {
  const state = start.state && stateReceiverOf(new StateQueue(start.state.queue), loaders);
  const receiver = receiverOf(start, control, state);
  try {
    receivePackets(receiver, start.channel, control);
  } finally {
    receiver.decoder?.close();
  }
}

function receivePackets(receiver: Receiver, channel: number, { words, counters }: Control): void {
  for (;;) {
    if (Atomics.load(words, Word.STOP) === STOP.NOW) return;
    switch (receivePacket(receiver)) {
      case RECEIVED.PACKET:
        break;
      case RECEIVED.SYNC:
        park(words, Atomics.add(words, Word.SYNCS, 1) + 1);
        break;
      case RECEIVED.END:
        say({ kind: 'ended' });
        return;
      case RECEIVED.LATE_PAGES: {
        const place = { channel, offset: counters[Counter.BYTES]! };
        const message = `${channelLabel(channel)}: offset ${place.offset}: pages behind the last SYNC that main has met`;
        throw dataplaneError({ code: 'DATAPLANE_LATE_PAGES', ...place }, message);
      }
    }
  }
}

/** Main collects this SYNC and releases it; a SYNC that nobody collects is let go by the stop. */
function park(words: Int32Array, sync: number): void {
  sayMoved();
  for (;;) {
    const signal = Atomics.load(words, Word.SIGNAL);
    if (((Atomics.load(words, Word.RELEASED) - sync) | 0) >= 0) return;
    if (Atomics.load(words, Word.STOP) !== STOP.NOT) return;
    Atomics.wait(words, Word.SIGNAL, signal);
  }
}
