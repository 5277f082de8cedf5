/**
 * Pages whose every word is known at every moment: the content of what emulated machines and devices write, so that it can be
 * verified bit for bit wherever it has moved. A page has a key and a version; version n + 1 differs from version n in two words:
 *
 *     page[0] = n + 1
 *     page[placeOf(key, n + 1)] = writtenWord(key, n + 1)
 *
 * Places are visited in a fixed cyclic order, so the word at a place is that of the last version that wrote it, or what was there in
 * the beginning: a closed form of (key, version). All of it is int32 arithmetic.
 */

/** Words of a page, and those that versions write: all but word 0, the version counter. */
export const PAGE_WORDS = 1024;
export const PLACES = 1023;

/** A bijection of int32 that spreads every input bit over the whole word (murmur3's finalizer). */
export function mix(x: number): number {
  let h = x ^ (x >>> 16);
  h = Math.imul(h, 0x85eb_ca6b);
  h ^= h >>> 13;
  h = Math.imul(h, 0xc2b2_ae35);
  return h ^ (h >>> 16);
}

/** Key of a page of a memory: seeds its initial content, its order of places and its values. */
export function keyOf(seed: number, page: number): number {
  return mix(seed ^ Math.imul(page + 1, 0x9e37_79b1));
}

/** Scales a hash to 0..count-1 without a division. Exact: the product stays below `count` in double precision. */
export function scale(hash: number, count: number): number {
  return ((hash >>> 0) * (count / 4294967296)) | 0;
}

/** Versions walk over the places in steps of 512, which is coprime to 1023; twice 512 is one step further, so 2 inverts it. */
const PLACE_STEP = 512;
const PLACE_STEP_INVERSE = 2;

/** Place written by version `n` (>= 1), 1..PLACES. */
export function placeOf(key: number, n: number): number {
  return 1 + ((((n >>> 0) % PLACES) * PLACE_STEP + (key >>> 22)) % PLACES);
}

/** The last version <= `n` that wrote `place`; 0 or less: none did. Inverts `placeOf`. */
export function lastVersionAt(key: number, place: number, n: number): number {
  const residue = ((place - 1 + PLACES * 2 - (key >>> 22)) * PLACE_STEP_INVERSE) % PLACES;
  return n - ((n - residue + PLACES) % PLACES);
}

/** A cheaper spreading for words that only have to be different and incompressible. */
function scramble(x: number): number {
  let h = Math.imul(x, 0x7feb_352d);
  h ^= h >>> 15;
  return Math.imul(h, 0x846c_a68b);
}

/** Word written by version `n` (>= 1). */
export function writtenWord(key: number, n: number): number {
  return scramble(key + Math.imul(n, 0x27d4_eb2f));
}

/** Word at `place` of a page that is filled in the beginning. */
export function initialWord(key: number, place: number): number {
  return scramble(key ^ place);
}

/** Word at `place` of a page after `n` operations on it. */
export function wordAt(key: number, filled: boolean, place: number, n: number): number {
  const version = lastVersionAt(key, place, n);
  if (version >= 1) return writtenWord(key, version);
  return filled ? initialWord(key, place) : 0;
}

/** The whole page after `n` operations on it, into the PAGE_WORDS words of `into`. */
export function pageAt(key: number, filled: boolean, n: number, into: Int32Array): void {
  if (n >= PLACES || !filled) into.fill(0);
  else for (let place = 1; place <= PLACES; place++) into[place] = initialWord(key, place);
  into[0] = n;
  for (let version = Math.max(1, n - PLACES + 1); version <= n; version++) {
    into[placeOf(key, version)] = writtenWord(key, version);
  }
}
