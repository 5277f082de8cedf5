/**
 * native: the few system calls that Node.js does not offer, by FFI (koffi). All of it is optional comfort: where the library cannot be
 * loaded, callers are told so and go on without.
 */
import { createRequire } from 'node:module';
import type { LibraryHandle } from 'koffi';

/** madvise(2), Linux: MADV_HUGEPAGE. */
const MADV_HUGEPAGE = 14;
const HUGE_PAGE_BYTES = 2 * 1024 * 1024;

interface Libc {
  readonly address: (bytes: Uint8Array) => number;
  readonly madvise: (address: number, length: number, advice: number) => number;
}

let libc: Libc | null | undefined;

function load(): Libc | null {
  if (process.platform !== 'linux') return null;
  try {
    const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi');
    const library: LibraryHandle = koffi.load('libc.so.6');
    return {
      address: (bytes) => Number(koffi.address(bytes)),
      madvise: library.func('int madvise(uintptr_t address, size_t length, int advice)') as Libc['madvise'],
    };
  } catch {
    return null;
  }
}

/**
 * Asks the kernel to back `bytes` with huge pages (2 MiB) as they are touched, as QEMU does for guest RAM: a fifth of the page fault
 * time, and copies that do not wait for address translation. False if that cannot be had here; nothing else changes then.
 */
export function adviseHugePages(bytes: Uint8Array): boolean {
  if (bytes.length < 2 * HUGE_PAGE_BYTES) return false;
  libc ??= load();
  if (libc === null) return false;
  const address = libc.address(bytes);
  const start = Math.ceil(address / HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES;
  const end = Math.floor((address + bytes.length) / HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES;
  return libc.madvise(start, end - start, MADV_HUGEPAGE) === 0;
}
