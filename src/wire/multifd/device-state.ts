/**
 * Packet of device state (10.0+): its header has nothing but the first 12 bytes in common with that of pages.
 *
 * ```
 * 0 u32 magic  4 u32 version  8 u32 flags 0x40  12 256 bytes idstr, NUL terminated  268 u32 instance id  272 u32 size  276 size bytes
 * ```
 * @spec qemu migration/multifd.h MultiFDPacketDeviceState_t
 */
import { overLimit, unexpected } from '../errors.ts';
import { isPrintable } from '../fields.ts';
import { MULTIFD_FLAG, MULTIFD_MAGIC, MULTIFD_VERSION } from './flags.ts';
import { type MultifdPlace, multifdPacketFlags } from './packet-kind.ts';

export const MULTIFD_DEVICE_STATE_BYTES = 276;
/** State in one packet, bytes; QEMU sends 1 MiB at most, a device's configuration may be somewhat larger. */
export const MULTIFD_DEVICE_PAYLOAD_BYTES_MAX = 64 * 1024 * 1024;

const AT = { flags: 8, idstr: 12, instance: 268, size: 272 } as const;
const IDSTR_BYTES = 256;

export interface MultifdDeviceState {
  readonly idstr: string;
  readonly instance: number;
  /** Bytes that follow the header, never 0. */
  readonly payloadBytes: number;
}

/** `idstr`: at most 255 latin1 characters, as section names are. */
export function encodeMultifdDeviceState(header: MultifdDeviceState): Buffer {
  const bytes = Buffer.alloc(MULTIFD_DEVICE_STATE_BYTES);
  bytes.writeUInt32BE(MULTIFD_MAGIC, 0);
  bytes.writeUInt32BE(MULTIFD_VERSION, 4);
  bytes.writeUInt32BE(MULTIFD_FLAG.DEVICE_STATE, AT.flags);
  bytes.write(header.idstr, AT.idstr, IDSTR_BYTES - 1, 'latin1');
  bytes.writeUInt32BE(header.instance, AT.instance);
  bytes.writeUInt32BE(header.payloadBytes, AT.size);
  return bytes;
}

/** `bytes` begins with a whole header that is at `place.origin`. Throws WireError. */
export function decodeMultifdDeviceState(place: MultifdPlace, bytes: Buffer): MultifdDeviceState {
  const flags = multifdPacketFlags(place, bytes);
  const wrong = (at: number, field: string, expected: string, found: string | number) =>
    unexpected(place, place.origin + at, 'device state packet', field, expected, found);
  if (flags !== MULTIFD_FLAG.DEVICE_STATE) throw wrong(AT.flags, 'flags', 'DEVICE_STATE', flags);
  const end = bytes.subarray(AT.idstr, AT.instance).indexOf(0);
  if (end < 0) throw wrong(AT.idstr, 'idstr', 'a NUL within 256 bytes', 'none');
  const idstr = bytes.toString('latin1', AT.idstr, AT.idstr + end);
  if (!isPrintable(idstr)) throw wrong(AT.idstr, 'idstr', 'a printable name', JSON.stringify(idstr));
  const payloadBytes = bytes.readUInt32BE(AT.size);
  if (payloadBytes === 0) throw wrong(AT.size, 'next_packet_size', 'more than 0', 0);
  if (payloadBytes > MULTIFD_DEVICE_PAYLOAD_BYTES_MAX) {
    throw overLimit(
      place,
      place.origin + AT.size,
      'device state packet',
      'next_packet_size',
      MULTIFD_DEVICE_PAYLOAD_BYTES_MAX,
      payloadBytes,
    );
  }
  return { idstr, instance: bytes.readUInt32BE(AT.instance), payloadBytes };
}
