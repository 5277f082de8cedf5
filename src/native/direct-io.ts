/** Files past the page cache: O_DIRECT wants memory, places and lengths to be multiples of the device's block size. */
import { constants, openSync } from 'node:fs';
import { addressOf } from './io-vector.ts';

/** Enough for every block size in use (512 and 4096). */
export const DIRECT_IO_ALIGNMENT = 4096;

/** `length` zero bytes, at a multiple of `alignment`, that threads can share. Throws NATIVE_UNAVAILABLE. */
export function alignedBuffer(length: number, alignment = DIRECT_IO_ALIGNMENT): Buffer {
  const memory = new SharedArrayBuffer(length + alignment);
  const skip = -addressOf(new Uint8Array(memory)) & (alignment - 1);
  return Buffer.from(memory, skip, length);
}

/**
 * Opens with O_DIRECT; undefined where the file system has none (EINVAL: tmpfs of old kernels, many FUSE ones). `flags` as for open(2),
 * from fs.constants. Throws what openSync throws otherwise.
 */
export function openDirect(path: string, flags: number, mode = 0o600): number | undefined {
  try {
    return openSync(path, flags | constants.O_DIRECT, mode);
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'EINVAL') return undefined;
    throw thrown;
  }
}
