/**
 * ```
 * u32 magic "QEVM"   u32 version 3
 * ```
 * @spec qemu migration/savevm.c qemu_savevm_state_header
 */
import type { Reader, Writer } from '../../base/index.ts';
import { hex, unexpected } from '../errors.ts';

export const STREAM_MAGIC = 0x5145564d;
export const STREAM_VERSION = 3;

export function encodeHeader(writer: Writer): void {
  writer.u32(STREAM_MAGIC).u32(STREAM_VERSION);
}

/** Returns the version (always 3; 2 is obsolete and refused). */
export function decodeHeader(reader: Reader): number {
  const start = reader.offset;
  const magic = reader.u32();
  if (magic !== STREAM_MAGIC) {
    throw unexpected(reader, start, 'header', 'magic', `${hex(STREAM_MAGIC)} (QEVM)`, hex(magic, 8));
  }
  const version = reader.u32();
  if (version !== STREAM_VERSION) {
    throw unexpected(reader, start + 4, 'header', 'version', String(STREAM_VERSION), version);
  }
  return version;
}
