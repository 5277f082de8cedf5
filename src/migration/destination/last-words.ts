/** What a destination says at the end, so that its source knows where the guest is. */
import { Writer } from '../../base/index.ts';
import { type Channel, isTransportError } from '../../transport/index.ts';
import { encodeReturnPathMessage, type ReturnPathMessage } from '../../wire/index.ts';
import { inTime } from '../deadline.ts';
import type { IncomingStream } from './incoming-stream.ts';

/** Puts a message on the return path. Throws TransportError. */
export async function answer(channel: Channel, message: ReturnPathMessage): Promise<void> {
  const writer = new Writer(64);
  encodeReturnPathMessage(writer, message);
  await channel.write(writer.bytes());
}

/** The machine is here. SHUT 0 is offered as long as the channel lives; whether it arrived shows in the source's orderly close. */
export async function sayArrived(stream: IncomingStream): Promise<boolean> {
  const { channel, sourceListens, settings } = stream;
  if (!sourceListens) return true;
  try {
    await inTime(answer(channel, { type: 'SHUT', value: 0 }), 'farewell', settings);
    await inTime(stream.drain(), 'farewell', settings);
    return true;
  } catch (error) {
    // No QEMU ends the TLS session of its main channel (qemu-wire 9.2): it just closes.
    return isTransportError(error) && error.code === 'TRANSPORT_TLS_CUT';
  }
}

/** It is not; `value` as SHUT has it. Never throws: the source may be gone. */
export async function sayFailed({ channel, sourceListens, settings }: IncomingStream, value: number): Promise<void> {
  if (!sourceListens) return;
  await inTime(answer(channel, { type: 'SHUT', value }), 'farewell', settings).catch(() => {});
}

/** Lets what was said leave. Never throws. */
export async function hangUp({ channel, sourceListens, settings }: IncomingStream): Promise<void> {
  if (sourceListens) await inTime(channel.end(), 'farewell', settings).catch(() => {});
}

/**
 * Reads on until the source has heard it and closes: what comes in after a socket is closed makes the kernel reset it, and the source may never read
 * what was said. Nobody else may read. Never throws.
 */
export async function hearOut(stream: IncomingStream): Promise<void> {
  if (stream.sourceListens) await inTime(stream.drain(), 'farewell', stream.settings).catch(() => {});
}
