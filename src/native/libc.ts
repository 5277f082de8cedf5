import { createRequire } from 'node:module';
import type { LibraryHandle } from 'koffi';
import { callFailed, NativeError } from './errors.ts';

/** The C library's functions that are used here, with numbers for addresses. Linux on 64 bit only. */
export interface Libc {
  readonly address: (bytes: Uint8Array) => number;
  /** Memory that lies there, as an ArrayBuffer that does not own it. */
  readonly view: (address: number, length: number) => ArrayBuffer;
  /** Of this thread's last failed call; to be read before anything else is called. */
  readonly errno: () => number;
  readonly madvise: (address: number, length: number, advice: number) => number;
  readonly readv: (fd: number, vector: number, count: number) => number;
  readonly writev: (fd: number, vector: number, count: number) => number;
  readonly pread: (fd: number, address: number, length: number, position: number) => number;
  readonly pwrite: (fd: number, address: number, length: number, position: number) => number;
  readonly syncFileRange: (fd: number, position: number, length: number, flags: number) => number;
  readonly memcpy: (to: number, from: number, length: number) => number;
  readonly recv: (fd: number, address: number, length: number, flags: number) => number;
  readonly fcntl: (fd: number, command: number, type: 'int', value: number) => number;
  readonly poll: (pollfds: number, count: number, timeoutMs: number) => number;
  readonly shutdown: (fd: number, how: number) => number;
  readonly setsockopt: (fd: number, level: number, name: number, value: number, length: number) => number;
  readonly ioctl: (fd: number, request: number, type: 'uintptr_t', argument: number) => number;
  readonly gettid: () => number;
  readonly prctl: (option: number, argument: string) => number;
  /** For the life of the process; the address that OpenSSL calls. */
  readonly registerPsk: <K extends keyof PskPrototypes>(kind: K, callback: PskPrototypes[K]) => number;
  /** A library by its path; null: what this process itself offers (Node.js exports its zlib on purpose, its addon docs say). */
  readonly load: (path: string | null) => LibraryHandle;
}

/** Of OpenSSL: who the peer is, or shall be, and its key, into memory of OpenSSL's; the length of the key is returned, 0 if there is none. */
export interface PskPrototypes {
  readonly client: (
    ssl: number,
    hint: number,
    identity: number,
    identityBytesMax: number,
    key: number,
    keyBytesMax: number,
  ) => number;
  readonly server: (ssl: number, identity: string, key: number, keyBytesMax: number) => number;
}

const PSK_PROTOTYPES: Record<keyof PskPrototypes, string> = {
  client:
    'unsigned int PskClient(uintptr_t ssl, uintptr_t hint, uintptr_t identity, unsigned int identityMax, uintptr_t key, unsigned int keyMax)',
  server: 'unsigned int PskServer(uintptr_t ssl, str identity, uintptr_t key, unsigned int keyMax)',
};

let loaded: Libc | null | undefined;
let whyNot: unknown;

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
      view: (address, length) => koffi.view(BigInt(address), length),
      errno: () => koffi.errno(),
      madvise: bind<Libc['madvise']>('int madvise(uintptr_t address, size_t length, int advice)'),
      readv: bind<Libc['readv']>('long readv(int fd, uintptr_t vector, int count)'),
      writev: bind<Libc['writev']>('long writev(int fd, uintptr_t vector, int count)'),
      pread: bind<Libc['pread']>('long pread(int fd, uintptr_t address, size_t length, long position)'),
      pwrite: bind<Libc['pwrite']>('long pwrite(int fd, uintptr_t address, size_t length, long position)'),
      syncFileRange: bind<Libc['syncFileRange']>(
        'int sync_file_range(int fd, long position, long length, unsigned int flags)',
      ),
      memcpy: bind<Libc['memcpy']>('uintptr_t memcpy(uintptr_t to, uintptr_t from, size_t length)'),
      recv: bind<Libc['recv']>('long recv(int fd, uintptr_t address, size_t length, int flags)'),
      fcntl: bind<Libc['fcntl']>('int fcntl(int fd, int command, ...)'),
      poll: bind<Libc['poll']>('int poll(uintptr_t pollfds, unsigned long count, int timeout)'),
      shutdown: bind<Libc['shutdown']>('int shutdown(int fd, int how)'),
      setsockopt: bind<Libc['setsockopt']>(
        'int setsockopt(int fd, int level, int name, uintptr_t value, unsigned int length)',
      ),
      ioctl: bind<Libc['ioctl']>('int ioctl(int fd, unsigned long request, ...)'),
      gettid: bind<Libc['gettid']>('int gettid()'),
      prctl: bind<Libc['prctl']>('int prctl(int option, str argument)'),
      registerPsk: (kind, callback) =>
        Number(koffi.register(callback, koffi.pointer(koffi.proto(PSK_PROTOTYPES[kind])))),
      load: (path) => koffi.load(path),
    };
  } catch (thrown) {
    whyNot = thrown;
    return null;
  }
}

/** Throws NATIVE_UNAVAILABLE if there is none; `what` (a plural: `parallel channels`) cannot go on without. */
export function needLibc(what: string): Libc {
  const found = libc();
  if (found !== null) return found;
  const message = `${what} need system calls that are made through the package koffi, which cannot be used here`;
  throw new NativeError({ code: 'NATIVE_UNAVAILABLE', what }, message, whyNot);
}

const EINTR = 4;

/** What `again` returns, called until no signal interrupts it. Throws NATIVE_CALL if that is negative. */
export function checked(c: Libc, call: string, again: () => number): number {
  for (;;) {
    const result = again();
    if (result >= 0) return result;
    const errno = c.errno();
    if (errno !== EINTR) throw callFailed(call, errno);
  }
}
