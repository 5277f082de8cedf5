import { libc } from './libc.ts';

/** Keeps shared memory alive as long as the view of it is. */
const owners = new WeakMap<ArrayBuffer, ArrayBufferLike>();

/**
 * The same bytes as a Buffer that V8 does not know to be shared. Copies into shared memory go byte by byte as soon as source and target
 * are not equally aligned (a page behind an 8-byte header behind a name of any length is not): three times the time of a plain copy. Only
 * for a thread that copies whole pages and relies on no order of single stores. `bytes` itself where this cannot be had.
 */
export function plainView(bytes: Buffer): Buffer {
  const c = libc();
  if (c === null || bytes.length === 0) return bytes;
  const view = c.view(c.address(bytes), bytes.length);
  owners.set(view, bytes.buffer);
  return Buffer.from(view);
}
