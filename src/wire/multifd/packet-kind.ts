/** The 12 bytes that RAM and device state packets have in common: u32 magic, u32 version, u32 flags. */
import { hex, unexpected } from '../errors.ts';
import { MULTIFD_COMPRESSION_MASK, MULTIFD_FLAG, MULTIFD_MAGIC, MULTIFD_VERSION } from './flags.ts';

export const MULTIFD_COMMON_BYTES = 12;

const KNOWN = MULTIFD_FLAG.SYNC | MULTIFD_FLAG.DEVICE_STATE | MULTIFD_COMPRESSION_MASK;

/** A channel's bytes: `bytes[0]` is at `origin` of `stream`. */
export interface MultifdPlace {
  readonly stream: string;
  /** Offset of the packet in the channel, bytes. */
  origin: number;
}

/** Checks the first 12 bytes of a packet and returns its flags. A packet is device state if DEVICE_STATE is set, else RAM. Throws WireError. */
export function multifdPacketFlags(place: MultifdPlace, bytes: Buffer): number {
  const magic = bytes.readUInt32BE(0);
  if (magic !== MULTIFD_MAGIC) throw wrong(place, 0, 'magic', hex(MULTIFD_MAGIC), hex(magic));
  const version = bytes.readUInt32BE(4);
  if (version !== MULTIFD_VERSION) throw wrong(place, 4, 'version', String(MULTIFD_VERSION), String(version));
  const flags = bytes.readUInt32BE(8);
  if ((flags & ~KNOWN) !== 0) throw wrong(place, 8, 'flags', `none but ${hex(KNOWN)}`, hex(flags));
  if ((flags & MULTIFD_FLAG.DEVICE_STATE) !== 0 && flags !== MULTIFD_FLAG.DEVICE_STATE) {
    throw wrong(place, 8, 'flags', 'DEVICE_STATE alone', hex(flags));
  }
  return flags;
}

function wrong(place: MultifdPlace, at: number, field: string, expected: string, found: string) {
  return unexpected(place, place.origin + at, 'packet', field, expected, found);
}
