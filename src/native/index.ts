/**
 * native: the few system calls that Node.js does not offer, by FFI (koffi). All of it is optional comfort: where the library cannot be
 * loaded, callers are told so and go on without.
 */
export { adviseHugePages } from './huge-pages.ts';
export { addressOf, canVector, IO_VECTOR_MAX, IoVector } from './io-vector.ts';
