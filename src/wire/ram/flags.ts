/** Low bits of the u64 that starts a record of a RAM section. @spec qemu migration/ram.c (RAM_SAVE_FLAG_*) */
export const RAM_FLAG = {
  /** Obsolete, never sent. */
  FULL: 0x001,
  ZERO: 0x002,
  MEM_SIZE: 0x004,
  PAGE: 0x008,
  EOS: 0x010,
  /** With ZERO, PAGE or XBZRLE: no name follows, the block is the last one named on this channel. */
  CONTINUE: 0x020,
  XBZRLE: 0x040,
  /** RDMA. */
  HOOK: 0x080,
  /** Capability `compress`, removed in 9.1. */
  COMPRESS_PAGE: 0x100,
  /** 8.1+. */
  MULTIFD_FLUSH: 0x200,
} as const;

/** For errors: `PAGE|CONTINUE`, unknown bits in hex. */
export function ramFlagNames(flags: number): string {
  const names: string[] = [];
  let rest = flags;
  for (const [name, bit] of Object.entries(RAM_FLAG)) {
    if ((flags & bit) !== 0) {
      names.push(name);
      rest &= ~bit;
    }
  }
  if (rest !== 0 || names.length === 0) names.push('0x' + rest.toString(16));
  return names.join('|');
}
