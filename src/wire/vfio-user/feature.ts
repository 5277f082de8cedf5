/**
 * DEVICE_FEATURE: u32 argsz  u32 flags  data.  The flags are the number of the feature and what is done with it: GET 0x10000, SET 0x20000,
 * PROBE 0x40000. A SET and a PROBE are answered by their own payload.
 *
 * ```
 *  1 MIGRATION           GET reply  u64 flags
 *  2 MIG_DEVICE_STATE    GET reply, SET  u32 state  u32 data fd, of no use here
 *  6 DMA_LOGGING_START   SET  u64 page size  u32 ranges  u32 0  ranges x (u64 iova  u64 length)
 *  7 DMA_LOGGING_STOP    SET
 *  8 DMA_LOGGING_REPORT  GET  u64 iova  u64 length  u64 page size     reply: the same and a bitmap of u64
 *  9 MIG_DATA_SIZE       GET reply  u64 bytes of a stop copy          the kernel's; libvfio-user has none
 * ```
 * vmferry's own, for what the kernel has elsewhere or nobody has. Found by PROBE, asked only of who says `split_messages`:
 *
 * ```
 * 0xff01 PRECOPY_INFO    GET reply  u64 initial bytes  u64 dirty bytes  u32 flags: 1 new initial data  u32 0
 * 0xff02 DEADLINE        SET  u32 state  u32 ms: there by then, or back where it was; ETIME: not promised, ETIMEDOUT: it is back
 * 0xff03 ESTIMATE        GET  u32 state  u32 0     reply: the same and u64 us that moving there takes; ENOENT: not known
 * ```
 * @spec linux include/uapi/linux/vfio.h VFIO_DEVICE_FEATURE; qemu docs/interop/vfio-user.rst
 */
import { type Field, i32, list, nothing, reserved, rest, struct, u32, u64 } from './layout.ts';

const GET = 0x1_0000;
const SET = 0x2_0000;
const PROBE = 0x4_0000;
const INDEX_MASK = 0xffff;

export interface FeatureFlags {
  readonly index: number;
  readonly get: boolean;
  readonly set: boolean;
  readonly probe: boolean;
}

const featureFlags: Field<FeatureFlags> = {
  bytes: 4,
  sizeOf: () => 4,
  read(payload, name) {
    const at = payload.pos;
    const flags = u32.read(payload, name);
    if ((flags & ~(INDEX_MASK | GET | SET | PROBE)) !== 0) {
      throw payload.wrong(at, name, 'an index with GET, SET or PROBE', '0x' + flags.toString(16));
    }
    const [get, set, probe] = [(flags & GET) !== 0, (flags & SET) !== 0, (flags & PROBE) !== 0];
    if (!probe && get === set) throw payload.wrong(at, name, 'one of GET and SET', '0x' + flags.toString(16));
    return { index: flags & INDEX_MASK, get, set, probe };
  },
  write: (into, at, { index, get, set, probe }) =>
    void into.writeUInt32LE((index | (get ? GET : 0) | (set ? SET : 0) | (probe ? PROBE : 0)) >>> 0, at),
};

/** `argsz`: in a GET the largest reply payload that is taken, else the size of this one. */
export const DeviceFeature = struct({ argsz: u32, flags: featureFlags, data: rest });
/** Bytes of a DEVICE_FEATURE payload before its data. */
export const FEATURE_HEAD_BYTES = 8;

/** What a message mode session has instead of the kernel's data_fd. */
export const NO_DATA_FD = -1;

/** @spec linux: the kernel takes one page of ranges. 0 ranges, everything, is a liberty of vfio-user. */
const LOGGING_RANGES_MAX = 256;

export interface LoggedRange {
  readonly iova: number;
  readonly length: number;
}

const ReportRange = struct({ iova: u64, length: u64, pageSize: u64 });

/** The data of each feature by operation; GET: of the request and of the reply. */
export const FEATURES = {
  MIGRATION: { index: 1, get: { request: nothing, reply: struct({ flags: u64 }) } },
  MIG_DEVICE_STATE: {
    index: 2,
    get: { request: nothing, reply: struct({ state: u32, dataFd: i32 }) },
    set: struct({ state: u32, dataFd: i32 }),
  },
  DMA_LOGGING_START: {
    index: 6,
    set: struct({ pageSize: u64, ranges: list(u32, struct({ iova: u64, length: u64 }), LOGGING_RANGES_MAX, 4) }),
  },
  DMA_LOGGING_STOP: { index: 7, set: nothing },
  DMA_LOGGING_REPORT: {
    index: 8,
    get: { request: ReportRange, reply: struct({ iova: u64, length: u64, pageSize: u64, bitmap: rest }) },
  },
  MIG_DATA_SIZE: { index: 9, get: { request: nothing, reply: struct({ stopCopyBytes: u64 }) } },
  PRECOPY_INFO: {
    index: 0xff01,
    get: {
      request: nothing,
      reply: struct({ initialBytes: u64, dirtyBytes: u64, flags: u32, rest: reserved(4) }),
    },
  },
  DEADLINE: { index: 0xff02, set: struct({ state: u32, deadlineMs: u32 }) },
  ESTIMATE: {
    index: 0xff03,
    get: {
      request: struct({ state: u32, rest: reserved(4) }),
      reply: struct({ state: u32, rest: reserved(4), us: u64 }),
    },
  },
} as const satisfies Record<string, FeatureBodies>;

interface FeatureBodies {
  readonly index: number;
  readonly get?: { readonly request: Field<unknown>; readonly reply: Field<unknown> };
  readonly set?: Field<unknown>;
}

/** Flag of PRECOPY_INFO. */
export const PRECOPY_INFO_REINIT = 1;

export type FeatureName = keyof typeof FEATURES;

export function featureOfIndex(index: number): FeatureName | undefined {
  return (Object.keys(FEATURES) as FeatureName[]).find((name) => FEATURES[name].index === index);
}
