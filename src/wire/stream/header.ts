/**
 * ```
 * u32 magic "QEVM"   u32 version 3
 * ```
 * @spec qemu migration/savevm.c qemu_savevm_state_header
 */
import type { Reader, Writer } from '../../base/index.ts';
import { hex, unexpected } from '../errors.ts';
import { HANDSHAKE_MAGIC } from '../handshake/frame.ts';
import { MULTIFD_MAGIC } from '../multifd/flags.ts';

export const STREAM_MAGIC = 0x5145564d;
export const STREAM_VERSION = 3;

/** A record of TLS 1.x that holds a handshake begins so: somebody who does not know that this end is in clear text. */
const TLS_HANDSHAKE = 0x1603;

export function encodeHeader(writer: Writer): void {
  writer.u32(STREAM_MAGIC).u32(STREAM_VERSION);
}

/** Others who may come to an end that is not set up for them. */
function whose(magic: number): string {
  if (magic >>> 16 === TLS_HANDSHAKE) return ' (TLS: is tls-creds set at the other end only?)';
  if (magic === HANDSHAKE_MAGIC) return ' (a handshake: x-vmferry-handshake is on at the other end only)';
  if (magic === MULTIFD_MAGIC) return ' (a parallel channel: is multifd on at the other end only?)';
  return '';
}

/** Returns the version (always 3; 2 is obsolete and refused). */
export function decodeHeader(reader: Reader): number {
  const start = reader.offset;
  const magic = reader.u32();
  if (magic !== STREAM_MAGIC) {
    throw unexpected(reader, start, 'header', 'magic', `${hex(STREAM_MAGIC)} (QEVM)`, hex(magic, 8) + whose(magic));
  }
  const version = reader.u32();
  if (version !== STREAM_VERSION) {
    throw unexpected(reader, start + 4, 'header', 'version', String(STREAM_VERSION), version);
  }
  return version;
}
