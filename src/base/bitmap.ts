/**
 * Bitmaps of pages: bit `i % 32` of word `i >>> 5`, in a Uint32Array (which may lie in shared memory).
 * Free functions, no allocation; counts are in bits.
 */
export function bitmapWords(bitCount: number): number {
  return Math.ceil(bitCount / 32);
}

export function newBitmap(bitCount: number): Uint32Array {
  return new Uint32Array(bitmapWords(bitCount));
}

/** One that threads share. */
export function newSharedBitmap(bitCount: number): Uint32Array<SharedArrayBuffer> {
  return new Uint32Array(new SharedArrayBuffer(bitmapWords(bitCount) * 4));
}

export function testBit(map: Uint32Array, bit: number): boolean {
  return (map[bit >>> 5]! & (1 << (bit & 31))) !== 0;
}

export function setBit(map: Uint32Array, bit: number): void {
  map[bit >>> 5]! |= 1 << (bit & 31);
}

export function clearBit(map: Uint32Array, bit: number): void {
  map[bit >>> 5]! &= ~(1 << (bit & 31));
}

/** As setBit and clearBit where other threads change bits of the same word. `map` lies in shared memory. */
export function setSharedBit(map: Uint32Array, bit: number): void {
  Atomics.or(map, bit >>> 5, 1 << (bit & 31));
}

export function clearSharedBit(map: Uint32Array, bit: number): void {
  Atomics.and(map, bit >>> 5, ~(1 << (bit & 31)));
}

/** Sets `count` bits from `first` on; returns how many of them were clear. */
export function setRange(map: Uint32Array, first: number, count: number): number {
  return count - writeRange(map, first, count, true);
}

/** Clears `count` bits from `first` on; returns how many of them were set. */
export function clearRange(map: Uint32Array, first: number, count: number): number {
  return writeRange(map, first, count, false);
}

/** Makes the bits of a range `value`; returns how many were set before. */
function writeRange(map: Uint32Array, first: number, count: number, value: boolean): number {
  const end = first + count;
  let before = 0;
  for (let bit = first; bit < end; ) {
    const index = bit >>> 5;
    const last = Math.min(end, (index + 1) * 32);
    // A shift by 32 is none.
    const mask = (last - bit === 32 ? 0xffff_ffff : (1 << (last - bit)) - 1) << (bit & 31);
    before += popcount32(map[index]! & mask);
    if (value) map[index]! |= mask;
    else map[index]! &= ~mask;
    bit = last;
  }
  return before;
}

export function popcount32(word: number): number {
  let x = word - ((word >>> 1) & 0x55555555);
  x = (x & 0x33333333) + ((x >>> 2) & 0x33333333);
  return Math.imul((x + (x >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

export function countBits(map: Uint32Array): number {
  let count = 0;
  for (let i = 0; i < map.length; i++) count += popcount32(map[i]!);
  return count;
}

/** Sets bits 0..bitCount-1 and no other. */
export function fillBitmap(map: Uint32Array, bitCount: number): void {
  map.fill(0);
  map.fill(0xffffffff, 0, bitCount >>> 5);
  if ((bitCount & 31) !== 0) map[bitCount >>> 5] = (1 << (bitCount & 31)) - 1;
}

/** First set bit at or after `from` and below `bitCount`; -1 if there is none. */
export function nextSetBit(map: Uint32Array, from: number, bitCount: number): number {
  if (from >= bitCount) return -1;
  let index = from >>> 5;
  const last = (bitCount - 1) >>> 5;
  let word = map[index]! & (0xffffffff << (from & 31));
  while (word === 0) {
    if (++index > last) return -1;
    word = map[index]!;
  }
  const bit = index * 32 + 31 - Math.clz32(word & -word);
  return bit < bitCount ? bit : -1;
}

/** First clear bit at or after `from`; `bitCount` if there is none below it. */
export function nextClearBit(map: Uint32Array, from: number, bitCount: number): number {
  if (from >= bitCount) return bitCount;
  let index = from >>> 5;
  const last = (bitCount - 1) >>> 5;
  let word = ~map[index]! & (0xffffffff << (from & 31));
  while (word === 0) {
    if (++index > last) return bitCount;
    word = ~map[index]!;
  }
  return Math.min(index * 32 + 31 - Math.clz32(word & -word), bitCount);
}
