/** Whole messages: encoded into one buffer each (a peer may not put together what comes in pieces), decoded as a header and its payload. */
import { FerryError, type Reader, type ReadFault, STARVED } from '../../base/index.ts';
import { locate } from '../errors.ts';
import { COMMANDS, type CommandName, commandOfNumber, type Reply, type Request } from './commands.ts';
import { HEADER_BYTES, type Header, readHeader, writeHeader } from './header.ts';
import { type Field, writeBody } from './layout.ts';
import { Payload } from './payload.ts';

/** What a message may have beside its data: the longest fixed part, a version text, a bitmap of 128 MiB of 4 KiB pages. */
export const MESSAGE_SLACK_BYTES = 16 * 1024;

export interface Message extends Header {
  /** A view: valid until the reader gets more bytes. Of an error reply it may be empty, whatever the command. */
  readonly payload: Payload;
}

/** The message that starts at the reader. Throws STARVED, WireError; then the reader stands where it stood. */
export function decodeMessage(reader: Reader, payloadBytesMax: number): Message {
  const mark = reader.pos;
  try {
    const { payloadBytes, ...header } = readHeader(reader, payloadBytesMax);
    const origin = reader.offset;
    const path = pathOf(header);
    return { ...header, payload: new Payload(reader.view(payloadBytes), path, reader.stream, origin) };
  } catch (thrown) {
    reader.pos = mark;
    if (thrown !== STARVED && thrown instanceof FerryError && thrown.code === 'WIRE_TRUNCATED') {
      throw locate(thrown as FerryError<ReadFault>, 'message');
    }
    throw thrown;
  }
}

function pathOf({ id, command, type }: Header): string {
  return `${commandOfNumber(command) ?? `command ${command}`} ${type} ${id}`;
}

export function encodeRequest<C extends CommandName>(
  id: number,
  command: C,
  value: Request<C>,
  options: { readonly noReply?: boolean } = {},
): Buffer {
  const { number, request } = COMMANDS[command];
  const header = { id, command: number, type: 'command', noReply: options.noReply ?? false, error: undefined } as const;
  return encode(header, request as Field<Request<C>>, value);
}

export function encodeReply<C extends CommandName>(id: number, command: C, value: Reply<C>): Buffer {
  const { number, reply } = COMMANDS[command];
  const header = { id, command: number, type: 'reply', noReply: false, error: undefined } as const;
  return encode(header, reply as Field<Reply<C>>, value);
}

/** As the protocol has it: no payload. `command` is the number that was asked, known or not. */
export function encodeErrorReply(id: number, command: number, error: number): Buffer {
  const bytes = Buffer.allocUnsafe(HEADER_BYTES);
  writeHeader(bytes, { id, command, type: 'reply', noReply: false, error }, 0);
  return bytes;
}

/** Throws WireError. Data in the value are views of the message. */
export function decodeRequest<C extends CommandName>(command: C, message: Message): Request<C> {
  message.payload.pos = 0;
  return (COMMANDS[command].request as Field<Request<C>>).read(message.payload, command);
}

/** Of a reply that says yes. Throws WireError. Data in the value are views of the message. */
export function decodeReply<C extends CommandName>(command: C, message: Message): Reply<C> {
  message.payload.pos = 0;
  return (COMMANDS[command].reply as Field<Reply<C>>).read(message.payload, command);
}

/** The payload alone: data of a feature. */
export function encodeBody<T>(body: Field<T>, value: T): Buffer {
  const bytes = Buffer.allocUnsafe(body.sizeOf(value));
  writeBody(body, bytes, 0, value);
  return bytes;
}

/** Of the data of a feature, to be read by its body. */
export function payloadOf(bytes: Buffer, path: string): Payload {
  return new Payload(bytes, path);
}

function encode<T>(header: Header, body: Field<T>, value: T): Buffer {
  const payloadBytes = body.sizeOf(value);
  const bytes = Buffer.allocUnsafe(HEADER_BYTES + payloadBytes);
  writeHeader(bytes, header, payloadBytes);
  writeBody(body, bytes, HEADER_BYTES, value);
  return bytes;
}

/** The same message with a payload of its own. */
export function keepMessage(message: Message): Message {
  const { bytes, path, stream, origin } = message.payload;
  return { ...message, payload: new Payload(Buffer.from(bytes), path, stream, origin) };
}
