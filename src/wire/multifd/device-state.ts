/**
 * Packet of device state (10.0+): its header has nothing but the first 12 bytes in common with that of pages. All devices that send such packets
 * are VFIO's, whose payload begins with a header of its own.
 *
 * ```
 *   0 u32 magic  4 u32 version  8 u32 flags 0x40  12 256 bytes idstr, NUL terminated  268 u32 instance id  272 u32 size
 * 276 u32 version 0  280 u32 index  284 u32 flags (1: the device's configuration, its last buffer)  288 size - 12 bytes of state
 * ```
 * Of one device the indices count 0, 1, 2 ...; packets of all devices come on any channel in any order.
 * @spec qemu migration/multifd.h MultiFDPacketDeviceState_t, hw/vfio/migration-multifd.c VFIODeviceStatePacket
 */
import { overLimit, unexpected, unsupported, type WireError } from '../errors.ts';
import { isPrintable } from '../fields.ts';
import { MULTIFD_FLAG, MULTIFD_MAGIC, MULTIFD_VERSION } from './flags.ts';
import { type MultifdPlace, multifdPacketFlags } from './packet-kind.ts';

/** Both headers together. */
export const MULTIFD_DEVICE_HEADER_BYTES = 288;
/** State in one packet, bytes: QEMU's devices send so much at most. */
export const MULTIFD_DEVICE_BYTES_MAX = 1024 * 1024;

const AT = { flags: 8, idstr: 12, instance: 268, size: 272, version: 276, index: 280, bufferFlags: 284 } as const;
const IDSTR_BYTES = 256;
const BUFFER_HEADER_BYTES = MULTIFD_DEVICE_HEADER_BYTES - AT.version;
const BUFFER_VERSION = 0;
const CONFIG_STATE = 1;
const INVALID_INDEX = 0xffffffff;
const PATH = 'device state packet';

/** A device as sections name it. */
export interface DeviceAddress {
  /** 1 to 255 printable characters. */
  readonly idstr: string;
  readonly instance: number;
}

/** The headers of all packets of one device; `writeDeviceBuffer` completes them packet by packet. */
export function deviceStateHeader({ idstr, instance }: DeviceAddress): Buffer {
  const bytes = Buffer.from(new SharedArrayBuffer(MULTIFD_DEVICE_HEADER_BYTES));
  bytes.writeUInt32BE(MULTIFD_MAGIC, 0);
  bytes.writeUInt32BE(MULTIFD_VERSION, 4);
  bytes.writeUInt32BE(MULTIFD_FLAG.DEVICE_STATE, AT.flags);
  bytes.write(idstr, AT.idstr, IDSTR_BYTES - 1, 'latin1');
  bytes.writeUInt32BE(instance, AT.instance);
  bytes.writeUInt32BE(BUFFER_VERSION, AT.version);
  return bytes;
}

/** `index`: below 0xffffffff. `stateBytes` follow the headers. */
export function writeDeviceBuffer(header: Buffer, index: number, isConfig: boolean, stateBytes: number): void {
  header.writeUInt32BE(BUFFER_HEADER_BYTES + stateBytes, AT.size);
  header.writeUInt32BE(index, AT.index);
  header.writeUInt32BE(isConfig ? CONFIG_STATE : 0, AT.bufferFlags);
}

/** Reads the headers of one channel; the fields hold what the last ones said. */
export class DeviceStateDecoder {
  /** Place in the list of known devices. */
  device = -1;
  index = 0;
  /** The last buffer of its device: no state but the configuration. */
  isConfig = false;
  /** Bytes of state that follow the headers, MULTIFD_DEVICE_BYTES_MAX at most. */
  stateBytes = 0;
  readonly #devices: readonly { readonly name: Buffer; readonly instance: number }[];

  constructor(devices: readonly DeviceAddress[]) {
    this.#devices = devices.map(({ idstr, instance }) => ({ name: Buffer.from(`${idstr}\0`, 'latin1'), instance }));
  }

  /** `bytes` begins with both headers, which are at `place.origin`. Throws WireError; then the fields are not to be used. */
  decode(place: MultifdPlace, bytes: Buffer): void {
    const flags = multifdPacketFlags(place, bytes);
    if (flags !== MULTIFD_FLAG.DEVICE_STATE) throw wrong(place, AT.flags, 'flags', 'DEVICE_STATE', flags);
    const size = bytes.readUInt32BE(AT.size);
    if (size < BUFFER_HEADER_BYTES) {
      throw wrong(place, AT.size, 'next_packet_size', `at least ${BUFFER_HEADER_BYTES}`, size);
    }
    if (size > BUFFER_HEADER_BYTES + MULTIFD_DEVICE_BYTES_MAX) {
      const limit = BUFFER_HEADER_BYTES + MULTIFD_DEVICE_BYTES_MAX;
      throw overLimit(place, place.origin + AT.size, PATH, 'next_packet_size', limit, size);
    }
    this.device = this.#find(place, bytes);
    const version = bytes.readUInt32BE(AT.version);
    if (version !== BUFFER_VERSION) {
      throw unsupported(place, place.origin + AT.version, PATH, 'this version of the buffer header', String(version));
    }
    const bufferFlags = bytes.readUInt32BE(AT.bufferFlags);
    if ((bufferFlags & ~CONFIG_STATE) !== 0) {
      throw unsupported(
        place,
        place.origin + AT.bufferFlags,
        PATH,
        'a flag of the buffer',
        `0x${bufferFlags.toString(16)}`,
      );
    }
    this.index = bytes.readUInt32BE(AT.index);
    if (this.index === INVALID_INDEX) throw wrong(place, AT.index, 'index', 'below 0xffffffff', this.index);
    this.isConfig = bufferFlags === CONFIG_STATE;
    this.stateBytes = size - BUFFER_HEADER_BYTES;
  }

  #find(place: MultifdPlace, bytes: Buffer): number {
    const instance = bytes.readUInt32BE(AT.instance);
    for (let device = 0; device < this.#devices.length; device++) {
      const known = this.#devices[device]!;
      if (known.instance !== instance) continue;
      if (bytes.compare(known.name, 0, known.name.length, AT.idstr, AT.idstr + known.name.length) === 0) return device;
    }
    throw this.#unknown(place, bytes, instance);
  }

  #unknown(place: MultifdPlace, bytes: Buffer, instance: number): WireError {
    const end = bytes.subarray(AT.idstr, AT.instance).indexOf(0);
    if (end < 0) return wrong(place, AT.idstr, 'idstr', 'a NUL within 256 bytes', 'none');
    const idstr = bytes.toString('latin1', AT.idstr, AT.idstr + end);
    const found = isPrintable(idstr) ? `${idstr} ${instance}` : JSON.stringify(idstr);
    return wrong(place, AT.idstr, 'device', 'one that sends its state here', found);
  }
}

function wrong(place: MultifdPlace, at: number, field: string, expected: string, found: string | number): WireError {
  return unexpected(place, place.origin + at, PATH, field, expected, found);
}
