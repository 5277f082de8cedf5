/**
 * What the destination says to the source.
 *
 * ```
 * u16 type, u16 length, payload
 *   1 SHUT u32     2 PONG u32     3 REQ_PAGES_ID u64 start, u32 length, cstr block     4 REQ_PAGES u64 start, u32 length
 *   5 RECV_BITMAP cstr block; behind the payload: u64 size, bitmap, u64 0x0123456789abcdef
 *   6 RESUME_ACK u32     7 SWITCHOVER_ACK
 * ```
 * @spec qemu migration/migration.c source_return_path_thread
 */
import type { Reader, Writer } from '../../base/index.ts';
import { unreachable } from '../../base/index.ts';
import { overLimit, unexpected, unsupported } from '../errors.ts';
import { nameField, u64Number } from '../fields.ts';
import { RECV_BITMAP_BYTES_MAX, RETURN_PATH_PAYLOAD_BYTES_MAX } from '../limits.ts';

export type ReturnPathMessage =
  /** 0: the migration has succeeded; anything else: failed. */
  | { readonly type: 'SHUT'; readonly value: number }
  | { readonly type: 'PONG'; readonly value: number }
  /** `start` and `length` in bytes inside the block. */
  | { readonly type: 'REQ_PAGES_ID'; readonly block: string; readonly start: number; readonly length: number }
  /** Of the block that was named last. */
  | { readonly type: 'REQ_PAGES'; readonly start: number; readonly length: number }
  /** One bit a target page, as bitmapToWire writes it. Decoded: a view, valid until the reader gets more bytes. */
  | { readonly type: 'RECV_BITMAP'; readonly block: string; readonly bitmap: Buffer }
  | { readonly type: 'RESUME_ACK'; readonly value: number }
  | { readonly type: 'SWITCHOVER_ACK' };

interface MessageFacts {
  readonly number: number;
  /** Payload bytes; undefined: depends on the block name. */
  readonly payload: number | undefined;
  readonly since: string;
}

export const RETURN_PATH_MESSAGES = {
  SHUT: { number: 1, payload: 4, since: '2.5' },
  PONG: { number: 2, payload: 4, since: '2.5' },
  REQ_PAGES_ID: { number: 3, payload: undefined, since: '2.5' },
  REQ_PAGES: { number: 4, payload: 12, since: '2.5' },
  RECV_BITMAP: { number: 5, payload: undefined, since: '3.0' },
  RESUME_ACK: { number: 6, payload: 4, since: '3.0' },
  SWITCHOVER_ACK: { number: 7, payload: 0, since: '8.1' },
} as const satisfies Record<ReturnPathMessage['type'], MessageFacts>;

const BY_NUMBER = new Map<number, readonly [ReturnPathMessage['type'], MessageFacts]>(
  Object.entries(RETURN_PATH_MESSAGES).map(([type, facts]) => [
    facts.number,
    [type as ReturnPathMessage['type'], facts],
  ]),
);

const BITMAP_END_MARK = 0x0123456789abcdefn;
/** The one value of RESUME_ACK. */
export const RESUME_ACK_VALUE = 1;

export function encodeReturnPathMessage(writer: Writer, message: ReturnPathMessage): void {
  writer.u16(RETURN_PATH_MESSAGES[message.type].number);
  switch (message.type) {
    case 'SHUT':
    case 'PONG':
    case 'RESUME_ACK':
      writer.u16(4).u32(message.value);
      return;
    case 'REQ_PAGES_ID':
      writer
        .u16(13 + message.block.length)
        .u64(message.start)
        .u32(message.length)
        .cstr(message.block);
      return;
    case 'REQ_PAGES':
      writer.u16(12).u64(message.start).u32(message.length);
      return;
    case 'RECV_BITMAP':
      writer.u16(1 + message.block.length).cstr(message.block);
      writer.u64(message.bitmap.length).raw(message.bitmap).u64(BITMAP_END_MARK);
      return;
    case 'SWITCHOVER_ACK':
      writer.u16(0);
      return;
    default:
      unreachable(message);
  }
}

/** The message that starts at the reader. Throws STARVED or WireError. */
export function decodeReturnPathMessage(reader: Reader, bitmapBytesMax = RECV_BITMAP_BYTES_MAX): ReturnPathMessage {
  const at = reader.offset;
  const number = reader.u16();
  const length = reader.u16();
  const known = BY_NUMBER.get(number);
  if (known === undefined)
    throw unsupported(reader, at, 'message', 'a return path message of this type', String(number));
  const [type, facts] = known;
  const path = `message ${type}`;
  if (length > RETURN_PATH_PAYLOAD_BYTES_MAX) {
    throw overLimit(reader, at + 2, path, 'payload length', RETURN_PATH_PAYLOAD_BYTES_MAX, length);
  }
  if (facts.payload !== undefined && length !== facts.payload) {
    throw unexpected(reader, at + 2, path, 'payload length', String(facts.payload), length);
  }
  reader.need(length);
  switch (type) {
    case 'SHUT':
    case 'PONG':
      return { type, value: reader.u32() };
    case 'RESUME_ACK': {
      const value = reader.u32();
      if (value !== RESUME_ACK_VALUE) throw unexpected(reader, at + 4, path, 'value', String(RESUME_ACK_VALUE), value);
      return { type, value };
    }
    case 'REQ_PAGES':
      return { type, ...pageRange(reader, path) };
    case 'REQ_PAGES_ID': {
      checkName(reader, path, 12, length);
      const range = pageRange(reader, path);
      return { type, block: nameField(reader, path, 'block'), ...range };
    }
    case 'RECV_BITMAP': {
      checkName(reader, path, 0, length);
      const block = nameField(reader, path, 'block');
      return { type, block, bitmap: decodeBitmap(reader, path, bitmapBytesMax) };
    }
    case 'SWITCHOVER_ACK':
      return { type };
    default:
      return unreachable(type);
  }
}

function pageRange(reader: Reader, path: string): { start: number; length: number } {
  const start = u64Number(reader, path, 'start');
  const at = reader.offset;
  const length = reader.u32();
  if (length === 0) throw unexpected(reader, at, path, 'length', 'more than 0', 0);
  return { start, length };
}

/** The name behind `before` bytes must fill the payload exactly. The reader stands at the start of the payload, which is whole. */
function checkName(reader: Reader, path: string, before: number, length: number): void {
  const at = reader.offset - 2;
  const least = before + 2;
  if (length < least) throw unexpected(reader, at, path, 'payload length', `at least ${least}`, length);
  const exact = before + 1 + reader.bytes[reader.pos + before]!;
  if (length !== exact)
    throw unexpected(reader, at, path, 'payload length', `${exact}, as its block name says`, length);
}

function decodeBitmap(reader: Reader, path: string, bytesMax: number): Buffer {
  const at = reader.offset;
  const size = u64Number(reader, path, 'bitmap size');
  if (size > bytesMax) throw overLimit(reader, at, path, 'bitmap size', bytesMax, size);
  if (size === 0 || size % 8 !== 0) throw unexpected(reader, at, path, 'bitmap size', 'a multiple of 8, not 0', size);
  const bitmap = reader.view(size);
  const markAt = reader.offset;
  const mark = reader.u64();
  if (mark !== BITMAP_END_MARK) {
    throw unexpected(reader, markAt, path, 'end mark', '0x123456789abcdef', '0x' + mark.toString(16));
  }
  return bitmap;
}
