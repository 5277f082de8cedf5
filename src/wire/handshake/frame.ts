/**
 * The handshake of two vmferry ends, in front of everything else on the main channel: one frame from the source, one from the destination. Ours:
 * no QEMU has anything like it.
 *
 * ```
 *  0  u32 magic 'VMFH'    4  u16 version 1    6  u16 kind: 1 hello, 2 answer    8  u32 length    12  body: JSON, an object, UTF-8
 * ```
 *
 * A newer end adds members, which an older one ignores; the version grows only with what an older one could not understand.
 */
import type { Reader, Writer } from '../../base/index.ts';
import { hex, overLimit, unexpected } from '../errors.ts';

export const HANDSHAKE_MAGIC = 0x564d4648;
export const HANDSHAKE_VERSION = 1;
/** Bytes. */
export const HANDSHAKE_BODY_MAX = 1024 * 1024;
const HEADER_BYTES = 12;
const PATH = 'handshake';
const KINDS = ['hello', 'answer'] as const;

export interface HandshakeFrame {
  readonly kind: (typeof KINDS)[number];
  /** At most HANDSHAKE_BODY_MAX bytes. */
  readonly body: Uint8Array;
}

export function encodeHandshake(writer: Writer, { kind, body }: HandshakeFrame): void {
  writer
    .u32(HANDSHAKE_MAGIC)
    .u16(HANDSHAKE_VERSION)
    .u16(KINDS.indexOf(kind) + 1)
    .u32(body.length)
    .raw(body);
}

/** The frame of that kind; `body` is a copy. Throws STARVED until it is all there, WireError. */
export function decodeHandshake(reader: Reader, kind: HandshakeFrame['kind']): HandshakeFrame {
  reader.need(4);
  const at = reader.offset;
  const magic = reader.u32();
  if (magic !== HANDSHAKE_MAGIC) throw unexpected(reader, at, PATH, 'magic', hex(HANDSHAKE_MAGIC), hex(magic));
  reader.need(HEADER_BYTES - 4);
  const version = reader.u16();
  if (version !== HANDSHAKE_VERSION)
    throw unexpected(reader, at + 4, PATH, 'version', String(HANDSHAKE_VERSION), version);
  const found = KINDS[reader.u16() - 1];
  if (found !== kind) throw unexpected(reader, at + 6, PATH, 'kind', kind, found ?? 'none of them');
  const length = reader.u32();
  if (length > HANDSHAKE_BODY_MAX) throw overLimit(reader, at + 8, PATH, 'length', HANDSHAKE_BODY_MAX, length);
  reader.need(length);
  return { kind, body: Uint8Array.from(reader.view(length)) };
}
