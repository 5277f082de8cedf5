/**
 * A region of the device read and written by messages.
 *
 * ```
 * READ          u64 offset  u32 region  u32 count             reply: the same and count bytes
 * WRITE         u64 offset  u32 region  u32 count  data       reply: without the data
 * WRITE_MULTI   u64 writes, each: u64 offset  u32 region  u32 count (8 at most)  8 bytes of data       reply: u64 writes done
 * ```
 * @spec qemu docs/interop/vfio-user.rst
 */
import { counted, list, raw, struct, u32, u64 } from './layout.ts';

/** Regions of a PCI device: BARs 0 to 5, and these. */
export const PCI_REGION = { BAR0: 0, ROM: 6, CONFIG: 7, VGA: 8 } as const;
export const PCI_REGION_COUNT = 9;

export const RegionRange = struct({ offset: u64, region: u32, count: u32 });
export const RegionData = struct({ offset: u64, region: u32, data: counted(u32) });

export const MULTI_WRITE_BYTES_MAX = 8;
const WRITES_MAX = 4096;

/** The first `count` of the 8 bytes count. */
export const RegionWriteMulti = struct({
  writes: list(u64, struct({ offset: u64, region: u32, count: u32, data: raw(MULTI_WRITE_BYTES_MAX) }), WRITES_MAX),
});
export const RegionWrittenMulti = struct({ done: u64 });
