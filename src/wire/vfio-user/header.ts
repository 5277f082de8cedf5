/**
 * What stands before every message, 16 bytes:
 *
 * ```
 * u16 id   u16 command   u32 size, header included   u32 flags   u32 error
 *                                                    flags: bits 0-3 type (0 command, 1 reply), 0x10 no reply wanted, 0x20 error
 * ```
 * @spec qemu docs/interop/vfio-user.rst, Header
 */
import type { Reader } from '../../base/index.ts';
import { overLimit, unexpected } from '../errors.ts';

export const HEADER_BYTES = 16;

const TYPE_MASK = 0x0f;
const TYPE = { command: 0, reply: 1 } as const;
const NO_REPLY = 0x10;
const ERROR = 0x20;

export interface Header {
  /** 0..65535, the sender's choice; a reply has that of its command. */
  readonly id: number;
  /** Number of the command, known or not. */
  readonly command: number;
  readonly type: keyof typeof TYPE;
  /** Of a command: silence is wanted, even after a failure. */
  readonly noReply: boolean;
  /** Linux errno of a reply that says no; undefined: it says yes. 0 is an error too: one without a number. */
  readonly error: number | undefined;
}

export function writeHeader(into: Buffer, { id, command, type, noReply, error }: Header, payloadBytes: number): void {
  into.writeUInt16LE(id, 0);
  into.writeUInt16LE(command, 2);
  into.writeUInt32LE(HEADER_BYTES + payloadBytes, 4);
  into.writeUInt32LE(TYPE[type] | (noReply ? NO_REPLY : 0) | (error === undefined ? 0 : ERROR), 8);
  into.writeUInt32LE(error ?? 0, 12);
}

/**
 * The header at the reader and the size of the payload behind it, which is `payloadBytesMax` at most. Flags that the protocol does not name
 * are not looked at, the error only where the flags say that it counts. Throws STARVED, WireError.
 */
export function readHeader(reader: Reader, payloadBytesMax: number): Header & { readonly payloadBytes: number } {
  reader.need(HEADER_BYTES);
  const { bytes, pos, offset } = reader;
  const id = bytes.readUInt16LE(pos);
  const command = bytes.readUInt16LE(pos + 2);
  const size = bytes.readUInt32LE(pos + 4);
  const flags = bytes.readUInt32LE(pos + 8);
  const path = `message ${id}, command ${command}`;
  const payloadBytes = size - HEADER_BYTES;
  if (payloadBytes < 0) {
    throw unexpected(reader, offset + 4, path, 'message size', `at least ${HEADER_BYTES}`, size);
  }
  if (payloadBytes > payloadBytesMax) {
    throw overLimit(reader, offset + 4, path, 'message size', HEADER_BYTES + payloadBytesMax, size);
  }
  const type = flags & TYPE_MASK;
  if (type > TYPE.reply) throw unexpected(reader, offset + 8, path, 'type', 'command (0) or reply (1)', type);
  reader.pos += HEADER_BYTES;
  const isReply = type === TYPE.reply;
  return {
    id,
    command,
    type: isReply ? 'reply' : 'command',
    noReply: !isReply && (flags & NO_REPLY) !== 0,
    error: isReply && (flags & ERROR) !== 0 ? bytes.readUInt32LE(pos + 12) : undefined,
    payloadBytes,
  };
}
