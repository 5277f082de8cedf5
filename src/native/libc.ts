import { createRequire } from 'node:module';

/** The C library's functions that are used here, with numbers for addresses. Linux on 64 bit only. */
export interface Libc {
  readonly address: (bytes: Uint8Array) => number;
  readonly errno: () => number;
  readonly madvise: (address: number, length: number, advice: number) => number;
  readonly readv: (fd: number, vector: number, count: number) => number;
  readonly writev: (fd: number, vector: number, count: number) => number;
}

let loaded: Libc | null | undefined;

/** Null where the library or the platform cannot be had. */
export function libc(): Libc | null {
  loaded ??= load();
  return loaded;
}

function load(): Libc | null {
  if (process.platform !== 'linux') return null;
  try {
    const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi');
    const library = koffi.load('libc.so.6');
    const bind = <F>(prototype: string) => library.func(prototype) as unknown as F;
    return {
      address: (bytes) => Number(koffi.address(bytes)),
      errno: () => koffi.errno(),
      madvise: bind<Libc['madvise']>('int madvise(uintptr_t address, size_t length, int advice)'),
      readv: bind<Libc['readv']>('long readv(int fd, uintptr_t vector, int count)'),
      writev: bind<Libc['writev']>('long writev(int fd, uintptr_t vector, int count)'),
    };
  } catch {
    return null;
  }
}
