/**
 * First bytes of a multifd channel, once; channels arrive in any order.
 *
 * ```
 *  0  u32 magic 0x11223344    4  u32 version 1    8  uuid of the VM, zeros if it has none    24  u8 channel id    25  39 bytes 0
 * ```
 * @spec qemu migration/multifd.c MultiFDInit_t
 */
import type { Reader } from '../../base/index.ts';
import { hex, unexpected } from '../errors.ts';
import { MULTIFD_MAGIC, MULTIFD_VERSION } from './flags.ts';

export const MULTIFD_INITIAL_BYTES = 64;

export interface MultifdInitial {
  /** 16 bytes. */
  readonly uuid: Uint8Array;
  /** 0..channels-1. */
  readonly channel: number;
}

/** `uuid`: 16 bytes, or undefined for a machine without one. */
export function encodeMultifdInitial(channel: number, uuid: Uint8Array | undefined): Buffer {
  const bytes = Buffer.alloc(MULTIFD_INITIAL_BYTES);
  bytes.writeUInt32BE(MULTIFD_MAGIC, 0);
  bytes.writeUInt32BE(MULTIFD_VERSION, 4);
  if (uuid !== undefined) bytes.set(uuid, 8);
  bytes[24] = channel;
  return bytes;
}

/** `channels`: how many there are. Bytes that are 0 today are not looked at. Throws STARVED, WireError. */
export function decodeMultifdInitial(reader: Reader, channels: number): MultifdInitial {
  reader.need(MULTIFD_INITIAL_BYTES);
  const at = reader.offset;
  const path = 'initial packet';
  const magic = reader.u32();
  if (magic !== MULTIFD_MAGIC) throw unexpected(reader, at, path, 'magic', hex(MULTIFD_MAGIC), hex(magic));
  const version = reader.u32();
  if (version !== MULTIFD_VERSION) throw unexpected(reader, at + 4, path, 'version', String(MULTIFD_VERSION), version);
  const uuid = Uint8Array.from(reader.view(16));
  const channel = reader.u8();
  if (channel >= channels)
    throw unexpected(reader, at + 24, path, 'channel id (multifd-channels)', `below ${channels}`, channel);
  reader.skip(39);
  return { uuid, channel };
}
