/**
 * Bitmaps of pages as they stand in mapped-ram files and behind RECV_BITMAP: 64-bit little-endian words, so bit i is bit `i % 8` of byte
 * `i >>> 3`. In memory (base/bitmap) the words have 32 bits; on a little-endian host the bytes are the same.
 */
import { bitmapWords } from '../../base/index.ts';

/** Bytes of a bitmap of `pageCount` pages: whole 64-bit words. */
export function wireBitmapBytes(pageCount: number): number {
  return Math.ceil(pageCount / 64) * 8;
}

export function bitmapToWire(map: Uint32Array, pageCount: number): Buffer {
  const bytes = Buffer.alloc(wireBitmapBytes(pageCount));
  for (let word = 0; word < bitmapWords(pageCount); word++) bytes.writeUInt32LE(map[word]!, word * 4);
  return bytes;
}

/** `bytes`: at least wireBitmapBytes(pageCount). Bits past the last page are dropped, whatever the file has there. */
export function bitmapFromWire(bytes: Buffer, pageCount: number): Uint32Array {
  const map = new Uint32Array(bitmapWords(pageCount));
  for (let word = 0; word < map.length; word++) map[word] = bytes.readUInt32LE(word * 4);
  if ((pageCount & 31) !== 0) map[map.length - 1]! &= (1 << (pageCount & 31)) - 1;
  return map;
}
