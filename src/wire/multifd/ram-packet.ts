/**
 * Header of a packet of pages: 320 + 8*N bytes, N = 512 KiB / page size (x86: 128, so 1344 bytes). Big endian.
 *
 * ```
 *   0  u32 magic   4  u32 version   8  u32 flags   12  u32 pages_alloc   16  u32 normal_pages   20  u32 next_packet_size
 *  24  u64 packet_num   32  u32 zero_pages (9.0+)   36  28 bytes 0   64  256 bytes block name, NUL padded
 * 320  N x u64 offsets in the block: first those of normal pages, then those of zero pages, then nothing of meaning
 * ```
 * The content of the normal pages follows, in the order of their offsets: as it is, or next_packet_size bytes compressed.
 *
 * What a reader must bear (qemu-wire facts 11 to 14): only normal_pages tells whether anything follows; QEMU 7.2 leaves old sizes, names
 * and offsets in packets without pages, sends such packets with flags 0, and lets SYNC ride on packets with pages; the
 * compression id says nothing on packets without pages.
 * @spec qemu migration/multifd.h MultiFDPacket_t, migration/multifd-nocomp.c multifd_ram_unfill_packet
 */
import { hex, joinPath, overLimit, unexpected, unsupported, type WireError } from '../errors.ts';
import type { AnnouncedBlock } from '../ram/sink.ts';
import {
  MULTIFD_COMPRESSED_BYTES_MAX,
  MULTIFD_COMPRESSION,
  MULTIFD_COMPRESSION_MASK,
  MULTIFD_FLAG,
  MULTIFD_MAGIC,
  MULTIFD_VERSION,
  type MultifdCompression,
  multifdCompressionName,
  multifdPagesMax,
} from './flags.ts';
import { type MultifdPlace, multifdPacketFlags } from './packet-kind.ts';

const AT = { flags: 8, pagesAlloc: 12, normal: 16, size: 20, number: 24, zero: 32, name: 64, offsets: 320 } as const;
const NAME_BYTES = 256;

export function multifdHeaderBytes(pageSize: number): number {
  return AT.offsets + 8 * multifdPagesMax(pageSize);
}

/**
 * Writes a header at the start of `into` (multifdHeaderBytes long). `name`: of the block, without NUL, at most 255 bytes; `offsets`: bytes
 * inside the block, normal pages first. A packet without pages has no name. `payloadBytes` follow the header.
 */
export function writeMultifdHeader(
  into: Buffer,
  flags: number,
  name: Uint8Array | undefined,
  normalPages: number,
  zeroPages: number,
  payloadBytes: number,
  packetNumber: number,
  offsets: Float64Array,
): void {
  const pages = normalPages + zeroPages;
  into.fill(0);
  into.writeUInt32BE(MULTIFD_MAGIC, 0);
  into.writeUInt32BE(MULTIFD_VERSION, 4);
  into.writeUInt32BE(flags, AT.flags);
  into.writeUInt32BE(pages === 0 ? 0 : (into.length - AT.offsets) / 8, AT.pagesAlloc);
  into.writeUInt32BE(normalPages, AT.normal);
  into.writeUInt32BE(payloadBytes, AT.size);
  into.writeUInt32BE(Math.floor(packetNumber / 0x1_0000_0000), AT.number);
  into.writeUInt32BE(packetNumber >>> 0, AT.number + 4);
  into.writeUInt32BE(zeroPages, AT.zero);
  if (name !== undefined) into.set(name, AT.name);
  for (let i = 0, at: number = AT.offsets; i < pages; i++, at += 8) {
    const offset = offsets[i]!;
    const high = Math.floor(offset / 0x1_0000_0000);
    const low = offset - high * 0x1_0000_0000;
    into[at + 1] = high >>> 16;
    into[at + 2] = high >>> 8;
    into[at + 3] = high;
    into[at + 4] = low >>> 24;
    into[at + 5] = low >>> 16;
    into[at + 6] = low >>> 8;
    into[at + 7] = low;
  }
}

/** Reads headers of one channel; the fields hold what the last one said. */
export class MultifdHeaderDecoder {
  flags = 0;
  sync = false;
  /** Index in the announced list; -1 without pages. */
  block = -1;
  normalPages = 0;
  zeroPages = 0;
  /** Bytes of content that follow the header: 0 without normal pages. */
  payloadBytes = 0;
  /** Bytes inside the block, normal pages first, zero pages behind them. Checked: whole pages of the block. */
  readonly offsets: Float64Array;

  readonly #pageSize: number;
  readonly #pagesMax: number;
  readonly #blocks: readonly AnnouncedBlock[];
  readonly #names: readonly Buffer[];
  readonly #compression: MultifdCompression;

  constructor(pageSize: number, blocks: readonly AnnouncedBlock[], compression: MultifdCompression) {
    this.#pageSize = pageSize;
    this.#pagesMax = multifdPagesMax(pageSize);
    this.#blocks = blocks;
    this.#names = blocks.map((block) => Buffer.from(block.idstr, 'latin1'));
    this.#compression = compression;
    this.offsets = new Float64Array(this.#pagesMax);
  }

  /** `bytes` begins with a whole header that is at `place.origin`. Throws WireError; then the fields are not to be used. */
  decode(place: MultifdPlace, bytes: Buffer): void {
    const flags = multifdPacketFlags(place, bytes);
    if ((flags & MULTIFD_FLAG.DEVICE_STATE) !== 0) {
      throw unexpected(place, place.origin + AT.flags, 'packet', 'flags', 'those of a RAM packet', hex(flags));
    }
    const allocated = bytes.readUInt32BE(AT.pagesAlloc);
    if (allocated > this.#pagesMax) {
      throw overLimit(place, place.origin + AT.pagesAlloc, 'packet', 'pages_alloc', this.#pagesMax, allocated);
    }
    const normal = bytes.readUInt32BE(AT.normal);
    if (normal > allocated) {
      throw overLimit(place, place.origin + AT.normal, 'packet', 'normal_pages', allocated, normal);
    }
    const zero = bytes.readUInt32BE(AT.zero);
    if (zero > allocated - normal) {
      throw overLimit(place, place.origin + AT.zero, 'packet', 'zero_pages', allocated - normal, zero);
    }
    this.flags = flags;
    this.sync = (flags & MULTIFD_FLAG.SYNC) !== 0;
    this.normalPages = normal;
    this.zeroPages = zero;
    this.payloadBytes = normal === 0 ? 0 : this.#payload(place, bytes, flags, normal);
    this.block = -1;
    if (normal + zero === 0) return;
    this.block = this.#find(place, bytes);
    this.#readOffsets(place, bytes, normal + zero);
  }

  #payload(place: MultifdPlace, bytes: Buffer, flags: number, normal: number): number {
    const found = flags & MULTIFD_COMPRESSION_MASK;
    if (found !== MULTIFD_COMPRESSION[this.#compression]) {
      const name = multifdCompressionName(found);
      if (found > MULTIFD_COMPRESSION.zstd && name !== hex(found)) {
        throw unsupported(place, place.origin + AT.flags, 'packet', `multifd-compression ${name}`, hex(flags));
      }
      throw unexpected(place, place.origin + AT.flags, 'packet', 'multifd-compression', this.#compression, name);
    }
    const size = bytes.readUInt32BE(AT.size);
    if (this.#compression === 'none') {
      const legal = normal * this.#pageSize;
      if (size !== legal) {
        throw unexpected(place, place.origin + AT.size, 'packet', 'next_packet_size', String(legal), size);
      }
    } else if (size === 0) {
      throw unexpected(place, place.origin + AT.size, 'packet', 'next_packet_size', 'more than 0', 0);
    } else if (size > MULTIFD_COMPRESSED_BYTES_MAX) {
      throw overLimit(place, place.origin + AT.size, 'packet', 'next_packet_size', MULTIFD_COMPRESSED_BYTES_MAX, size);
    }
    return size;
  }

  #find(place: MultifdPlace, bytes: Buffer): number {
    for (let block = 0; block < this.#names.length; block++) if (this.#isNamed(block, bytes)) return block;
    const end = bytes.indexOf(0, AT.name);
    const name = bytes.toString(
      'latin1',
      AT.name,
      end < 0 ? AT.name + NAME_BYTES : Math.min(end, AT.name + NAME_BYTES),
    );
    throw unexpected(place, place.origin + AT.name, 'packet', 'block', 'one of the block list', JSON.stringify(name));
  }

  #isNamed(block: number, bytes: Buffer): boolean {
    const name = this.#names[block]!;
    const length = name.length;
    if (bytes[AT.name + length] !== 0) return false;
    for (let i = 0; i < length; i++) if (name[i] !== bytes[AT.name + i]) return false;
    return true;
  }

  #readOffsets(place: MultifdPlace, bytes: Buffer, pages: number): void {
    const offsets = this.offsets;
    const pageMask = this.#pageSize - 1;
    const last = this.#blocks[this.block]!.usedLength - this.#pageSize;
    for (let i = 0, at: number = AT.offsets; i < pages; i++, at += 8) {
      const high = (bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!;
      const low = (bytes[at + 4]! << 24) | (bytes[at + 5]! << 16) | (bytes[at + 6]! << 8) | bytes[at + 7]!;
      const offset = (high >>> 0) * 0x1_0000_0000 + (low >>> 0);
      if (offset > last || (low & pageMask) !== 0) throw this.#misplaced(place, bytes, i, last);
      offsets[i] = offset;
    }
  }

  #misplaced(place: MultifdPlace, bytes: Buffer, index: number, last: number): WireError {
    const at = AT.offsets + 8 * index;
    const path = joinPath('packet', `block ${this.#blocks[this.block]!.idstr}`);
    const found = '0x' + bytes.readBigUInt64BE(at).toString(16);
    const legal = `a multiple of ${hex(this.#pageSize)}, at most ${hex(last)}`;
    return unexpected(place, place.origin + at, path, `offset ${index}`, legal, found);
  }
}
