/**
 * First bytes of a preempt channel where two vmferry ends have agreed on more than one, once; channels arrive in any order. Page records follow. Ours:
 * a QEMU has one, which begins with its first page record, and so does the one of two vmferry ends that use no more.
 *
 * ```
 *  0  u32 magic 'VMFP'    4  u16 version 1    6  u8 channel id    7  u8 how many there are
 * ```
 */
import type { Reader } from '../../base/index.ts';
import { hex, unexpected } from '../errors.ts';

export const PREEMPT_MAGIC = 0x564d4650;
export const PREEMPT_VERSION = 1;
export const PREEMPT_INITIAL_BYTES = 8;

/** `channel`: 0..channels-1; `channels`: at most 255. */
export function encodePreemptInitial(channel: number, channels: number): Buffer {
  const bytes = Buffer.alloc(PREEMPT_INITIAL_BYTES);
  bytes.writeUInt32BE(PREEMPT_MAGIC, 0);
  bytes.writeUInt16BE(PREEMPT_VERSION, 4);
  bytes[6] = channel;
  bytes[7] = channels;
  return bytes;
}

/** Which of the `channels` that were agreed on it is. Throws STARVED, WireError. */
export function decodePreemptInitial(reader: Reader, channels: number): number {
  reader.need(PREEMPT_INITIAL_BYTES);
  const at = reader.offset;
  const path = 'initial packet';
  const magic = reader.u32();
  if (magic !== PREEMPT_MAGIC) throw unexpected(reader, at, path, 'magic', hex(PREEMPT_MAGIC), hex(magic));
  const version = reader.u16();
  if (version !== PREEMPT_VERSION) throw unexpected(reader, at + 4, path, 'version', String(PREEMPT_VERSION), version);
  const channel = reader.u8();
  const count = reader.u8();
  if (count !== channels) throw unexpected(reader, at + 7, path, 'channels', String(channels), count);
  if (channel >= channels) throw unexpected(reader, at + 6, path, 'channel id', `below ${channels}`, channel);
  return channel;
}
