/**
 * native: the few system calls that Node.js does not offer, and its OpenSSL, by FFI (koffi). Huge pages, vectors and thread names are comfort: where the
 * library cannot be loaded, callers are told so and go on without. Parallel channels and TLS cannot be had without: NATIVE_UNAVAILABLE says so.
 */
export * from './descriptors.ts';
export * from './direct-io.ts';
export * from './errors.ts';
export * from './file-pages.ts';
export { adviseHugePages } from './huge-pages.ts';
export { addressOf, canVector, IO_VECTOR_MAX, IoVector } from './io-vector.ts';
export { type Libc, needLibc } from './libc.ts';
export * from './line.ts';
export * from './openssl.ts';
export { plainView } from './plain-view.ts';
export * from './tcp-options.ts';
export * from './thread.ts';
export { TLS_RECORD_BYTES, TlsKeys } from './tls-keys.ts';
