/**
 * Guest memory for the device: DMA_MAP and DMA_UNMAP tell the server what there is, DMA_READ and DMA_WRITE let it reach it without a
 * descriptor of its own.
 *
 * ```
 * DMA_MAP     u32 argsz  u32 flags  u64 file offset  u64 address  u64 size
 * DMA_UNMAP   u32 argsz  u32 flags  u64 address  u64 size  [u64 page size  u64 bitmap bytes  in a reply: bitmap]
 * DMA_READ    u64 address  u64 count                 reply: the same and the data
 * DMA_WRITE   u64 address  u64 count  data           reply: without the data
 * ```
 * @spec qemu docs/interop/vfio-user.rst; that the count of a DMA_WRITE reply has 64 bits: libvfio-user and QEMU 11.1 (10.1 has 32 bits
 * in all of them, and its data right behind)
 */
import { counted, optional, ownArgsz, struct, u32, u64 } from './layout.ts';

export const DMA_MAP_FLAG = { READ: 1, WRITE: 2, MMAP: 4, FILE_IO: 8 } as const;
export const DMA_UNMAP_FLAG = { GET_DIRTY_BITMAP: 1, ALL: 2 } as const;

export const DmaMap = struct({ argsz: ownArgsz(32), flags: u32, offset: u64, address: u64, size: u64 });

/** `argsz`: with a bitmap the largest reply payload that is taken, else 24. `bitmap.size`: room for it, bytes. */
export const DmaUnmap = struct({
  argsz: u32,
  flags: u32,
  address: u64,
  size: u64,
  bitmap: optional(struct({ pageSize: u64, size: u64 })),
});

export const DmaUnmapped = struct({
  argsz: u32,
  flags: u32,
  address: u64,
  size: u64,
  bitmap: optional(struct({ pageSize: u64, bits: counted(u64) })),
});

export const DmaRange = struct({ address: u64, count: u64 });
export const DmaData = struct({ address: u64, data: counted(u64) });
