/** What a destination says at the end, so that its source knows where the guest is. */
import { Writer } from '../../base/index.ts';
import { type Channel, isTransportError } from '../../transport/index.ts';
import { encodeReturnPathMessage, type ReturnPathMessage } from '../../wire/index.ts';
import { within } from '../deadline.ts';
import type { IncomingStream } from './incoming-stream.ts';

/** Time for the source to close after SHUT 0, and for a last SHUT on the failure path to leave, ms. */
const CLOSING_DEADLINE_MS = 5_000;

/** Puts a message on the return path. Throws TransportError. */
export async function answer(channel: Channel, message: ReturnPathMessage): Promise<void> {
  const writer = new Writer(64);
  encodeReturnPathMessage(writer, message);
  await channel.write(writer.bytes());
}

/** The machine is here. SHUT 0 is offered as long as the channel lives; whether it arrived shows in the source's orderly close. */
export async function sayArrived(stream: IncomingStream): Promise<boolean> {
  const { channel, sourceListens } = stream;
  if (!sourceListens) return true;
  try {
    await within(answer(channel, { type: 'SHUT', value: 0 }), CLOSING_DEADLINE_MS, 'SHUT to leave');
    await within(stream.drain(), CLOSING_DEADLINE_MS, 'the source to close');
    return true;
  } catch (error) {
    // No QEMU ends the TLS session of its main channel (qemu-wire 9.2): it just closes.
    return isTransportError(error) && error.code === 'TRANSPORT_TLS_CUT';
  }
}

/** It is not; `value` as SHUT has it. Never throws: the source may be gone. */
export async function sayFailed({ channel, sourceListens }: IncomingStream, value: number): Promise<void> {
  if (!sourceListens) return;
  await within(answer(channel, { type: 'SHUT', value }), CLOSING_DEADLINE_MS, 'SHUT to leave').catch(() => {});
}

/** Lets what was said leave. Never throws. */
export async function hangUp({ channel, sourceListens }: IncomingStream): Promise<void> {
  if (sourceListens) await within(channel.end(), CLOSING_DEADLINE_MS, 'the channel to end').catch(() => {});
}
