/**
 * The state of a device as bytes. Borders of messages say nothing.
 *
 * ```
 * MIG_DATA_READ    u32 argsz  u32 size          reply: u32 argsz  u32 size  data, and zeros if the server has padded what it had less
 * MIG_DATA_WRITE   u32 argsz  u32 size  data    reply: nothing
 * ```
 * A reply of size 0: nothing is left, in PRE_COPY for now, in STOP_COPY for good. @spec qemu docs/interop/vfio-user.rst
 */
import { counted, ownArgsz, struct, u32 } from './layout.ts';

/** Bytes of either payload before its data. */
export const MIG_DATA_HEAD_BYTES = 8;

/** `argsz`: the head and `size`, or more. */
export const MigDataRange = struct({ argsz: u32, size: u32 });
export const MigData = struct({ argsz: ownArgsz(MIG_DATA_HEAD_BYTES), data: counted(u32) });
