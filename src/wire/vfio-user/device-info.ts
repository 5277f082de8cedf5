/**
 * What the device is made of.
 *
 * ```
 * GET_INFO      u32 argsz  u32 flags  u32 regions  u32 irqs                                     both ways
 * REGION_INFO   u32 argsz  u32 flags  u32 index  u32 capability offset  u64 size  u64 offset    both ways; a reply may have capabilities behind it
 * IRQ_INFO      u32 argsz  u32 flags  u32 index  u32 count                                      both ways
 * IO_FDS        u32 argsz  u32 flags  u32 index  u32 count                                      reply: count x 40 bytes behind it
 * ```
 * argsz: in a request the largest reply payload that is taken, in a reply what a whole one needs.
 * @spec qemu docs/interop/vfio-user.rst; linux include/uapi/linux/vfio.h
 */
import { list, raw, reserved, struct, u32, u64 } from './layout.ts';
import { regionCapabilities } from './region-capability.ts';

export const DEVICE_FLAG = { RESET: 1, PCI: 2 } as const;
export const REGION_FLAG = { READ: 1, WRITE: 2, MMAP: 4, CAPS: 8 } as const;
export const IRQ_FLAG = { EVENTFD: 1, MASKABLE: 2, AUTOMASKED: 4, NORESIZE: 8 } as const;

/** Bytes of a REGION_INFO payload before its capabilities. */
export const REGION_INFO_BYTES = 32;

export const DeviceInfo = struct({ argsz: u32, flags: u32, regions: u32, irqs: u32 });
/** Asks for DeviceInfo: whatever else is sent along is not looked at. */
export const DeviceInfoRequest = struct({ argsz: u32, rest: reserved(12) });

export const RegionInfoRequest = struct({
  argsz: u32,
  flags: reserved(4),
  index: u32,
  rest: reserved(REGION_INFO_BYTES - 12),
});

/** `argsz` larger than the payload: it was cut, ask again with that much. `capabilities` undefined: they are not in this payload. */
export const RegionInfo = struct({
  argsz: u32,
  flags: u32,
  index: u32,
  capabilityOffset: reserved(4),
  size: u64,
  offset: u64,
  capabilities: regionCapabilities,
});

export const IrqInfoRequest = struct({ argsz: u32, flags: reserved(4), index: u32, count: reserved(4) });
export const IrqInfo = struct({ argsz: u32, flags: u32, index: u32, count: u32 });

/** No device has that many places where a store rings a bell. */
const IO_FDS_MAX = 4096;

/** Part of a region whose accesses go over a descriptor of their own. `tail`: what its type adds, 12 or 20 bytes that we do not use. */
export const IoFd = struct({ offset: u64, size: u64, fdIndex: u32, type: u32, tail: raw(16) });

export const RegionIoFdsRequest = struct({ argsz: u32, flags: reserved(4), index: u32, count: reserved(4) });
export const RegionIoFds = struct({
  argsz: u32,
  flags: reserved(4),
  index: u32,
  subRegions: list(u32, IoFd, IO_FDS_MAX),
});
