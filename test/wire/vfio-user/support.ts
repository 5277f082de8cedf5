import { StreamInput, vfioUser } from '../../../src/wire/index.ts';

export const PAYLOAD_MAX = 1024 * 1024 + vfioUser.MESSAGE_SLACK_BYTES;

/** The message that `bytes` begin with; what follows it is not looked at. */
export function messageOf(bytes: Buffer): vfioUser.Message {
  const input = new StreamInput('vfio-user');
  input.add({ bytes, start: 0, end: bytes.length });
  input.finish();
  return vfioUser.decodeMessage(input.reader, PAYLOAD_MAX);
}

/** What a message says, in the terms of its command; data are copies. */
export function said(message: vfioUser.Message): unknown {
  const command = vfioUser.commandOfNumber(message.command);
  if (command === undefined || message.error !== undefined) return undefined;
  const value =
    message.type === 'command' ? vfioUser.decodeRequest(command, message) : vfioUser.decodeReply(command, message);
  return copied(value);
}

/** The same message from what was understood of it. */
export function encodedAgain(message: vfioUser.Message): Buffer {
  const command = vfioUser.commandOfNumber(message.command);
  if (message.error !== undefined || command === undefined) {
    return vfioUser.encodeErrorReply(message.id, message.command, message.error ?? 0);
  }
  if (message.type === 'command') {
    const request = vfioUser.decodeRequest(command, message);
    return vfioUser.encodeRequest(message.id, command, request as never, { noReply: message.noReply });
  }
  return vfioUser.encodeReply(message.id, command, vfioUser.decodeReply(command, message) as never);
}

/** Plain values and buffers, so that they can be compared. */
export function copied(value: unknown): unknown {
  if (value instanceof Uint8Array) return Buffer.from(value);
  if (Array.isArray(value)) return value.map(copied);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, copied(member)]));
}

export const hex = (text: string): Buffer => Buffer.from(text.replaceAll(' ', ''), 'hex');
