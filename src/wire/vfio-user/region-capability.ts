/**
 * What a REGION_INFO reply has behind its 32 bytes: a chain of capabilities, each where the one before says, counted from the start of the
 * payload.
 *
 * ```
 * u16 id  u16 version  u32 next, 0 at the last       id 1, sparse mmap: u32 areas  u32 0  areas x (u64 offset  u64 size)
 * ```
 * Offsets only rise, so that a chain ends. @spec linux include/uapi/linux/vfio.h vfio_info_cap_header
 */
import { type Field, list, struct, u16, u32, u64 } from './layout.ts';
import { Payload } from './payload.ts';

/** Part of a region that may be mapped, bytes from the region's start. */
export interface MappableArea {
  readonly offset: number;
  readonly size: number;
}

export type RegionCapability =
  | { readonly kind: 'sparse-mmap'; readonly areas: readonly MappableArea[] }
  /** Known by its number only. */
  | { readonly kind: 'other'; readonly id: number; readonly version: number };

const SPARSE_MMAP = { id: 1, version: 1 } as const;
const AREAS_MAX = 4096;

const Head = struct({ id: u16, version: u16, next: u32 });
const Sparse = struct({ areas: list(u32, struct({ offset: u64, size: u64 }), AREAS_MAX, 4) });

/** Bytes of REGION_INFO before the first capability, and where among them it is said that there is one. */
const HEAD_BYTES = 32;
const OFFSET_AT = 12;

/** Field behind the 32 bytes, which have `argsz` at 0. Undefined: the payload was cut to what its request had room for. */
export const regionCapabilities: Field<readonly RegionCapability[] | undefined> & { readonly varies: true } = {
  bytes: 0,
  varies: true,
  sizeOf: (value) => (value ?? []).reduce((sum, one) => sum + sizeOfOne(one), 0),
  read({ bytes, path, stream, origin }) {
    const capabilities: RegionCapability[] = [];
    if (bytes.readUInt32LE(0) > bytes.length) return bytes.readUInt32LE(OFFSET_AT) === 0 ? capabilities : undefined;
    const chain = new Payload(bytes, path, stream, origin);
    let nextAt = OFFSET_AT;
    for (let least = HEAD_BYTES; ; least = chain.pos) {
      const next = bytes.readUInt32LE(nextAt);
      if (next === 0) return capabilities;
      if (next < least || next > bytes.length) {
        throw chain.wrong(nextAt, 'capability offset', `0 or ${least} to ${bytes.length}`, next);
      }
      chain.pos = next;
      const { id, version } = Head.read(chain, 'capability');
      nextAt = next + 4;
      if (id === SPARSE_MMAP.id) capabilities.push({ kind: 'sparse-mmap', ...Sparse.read(chain, 'sparse mmap') });
      else capabilities.push({ kind: 'other', id, version });
    }
  },
  write(into, at, value) {
    let place = at;
    for (const [index, one] of (value ?? []).entries()) {
      if (index === 0) into.writeUInt32LE(HEAD_BYTES, at - HEAD_BYTES + OFFSET_AT);
      const following = place + sizeOfOne(one);
      const next = index + 1 === value?.length ? 0 : following - at + HEAD_BYTES;
      const { id, version } = one.kind === 'sparse-mmap' ? SPARSE_MMAP : one;
      Head.write(into, place, { id, version, next }, 0);
      if (one.kind === 'sparse-mmap') Sparse.write(into, place + Head.bytes, one, 0);
      place = following;
    }
  },
};

function sizeOfOne(one: RegionCapability): number {
  return Head.bytes + (one.kind === 'sparse-mmap' ? Sparse.sizeOf(one) : 0);
}
