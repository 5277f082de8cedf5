/** Flags of multifd packets. @spec qemu migration/multifd.h (MULTIFD_FLAG_*) */
export const MULTIFD_MAGIC = 0x11223344;
export const MULTIFD_VERSION = 1;

/** Pages of one packet at most, bytes: the target page size does not matter. */
export const MULTIFD_PACKET_PAGES_BYTES = 512 * 1024;
/** Compressed pages of one packet, bytes: the size of a QEMU receiver's buffer. */
export const MULTIFD_COMPRESSED_BYTES_MAX = 1024 * 1024;

export const MULTIFD_FLAG = {
  /** Barrier: later packets of the channel wait for the meeting point of all channels. */
  SYNC: 0x01,
  /** The packet holds device state (10.0+); its header is another one. */
  DEVICE_STATE: 0x40,
} as const;

/** Compression methods (parameter multifd-compression) and their value under MULTIFD_COMPRESSION_MASK. */
export const MULTIFD_COMPRESSION = { none: 0x00, zlib: 0x02, zstd: 0x04, qpl: 0x08, uadk: 0x10, qatzip: 0x20 } as const;
export type MultifdCompression = keyof typeof MULTIFD_COMPRESSION;
export const MULTIFD_COMPRESSION_MASK = 0x3e;

/** For errors: the method's name, or the bits. */
export function multifdCompressionName(flags: number): string {
  const bits = flags & MULTIFD_COMPRESSION_MASK;
  const found = Object.entries(MULTIFD_COMPRESSION).find(([, value]) => value === bits);
  return found?.[0] ?? '0x' + bits.toString(16);
}

/** Pages of one packet at most, and entries of its table of offsets: N. */
export function multifdPagesMax(pageSize: number): number {
  return MULTIFD_PACKET_PAGES_BYTES / pageSize;
}
