/**
 * What the guest computes: the definition that the vCPUs execute and the verifier recomputes. All of it is int32 arithmetic on
 * (seed, page, version) and (seed, vCPU, operation), so every page and register has one right value at every moment:
 *
 *     operation k of vCPU v:  page = pick(v, k), one of the pages that v owns
 *       version = page[0]
 *       acc     = fold(acc, version, page[peekPlace(key, version)])        and sometimes a word of the rom
 *       page[0] = version + 1
 *       page[placeOf(key, version + 1)] = writtenWord(key, version + 1)
 *
 * A page's places are visited in a fixed cyclic order, so the word at a place is the value of the last version that wrote it, or
 * what was there in the beginning: a closed form of (seed, page, number of operations on the page).
 */
import { unreachable } from '../../base/index.ts';
import { type Layout, PAGE_WORDS } from './layout.ts';

/** Words of a page that operations write: all but word 0, the version counter. */
const PLACES = 1023;

export const PATTERNS = ['uniform', 'hot-cold', 'sequential', 'idle'] as const;
export type Pattern = (typeof PATTERNS)[number];

/** hot-cold: this share of the operations falls on this share of the pages. */
export const HOT_OPERATIONS = 0.9;
export const HOT_PAGES = 0.1;

/** One operation in ROM_PERIOD (a power of two) reads a word of the rom. */
export const ROM_PERIOD = 64;

export interface ProgramParameters {
  /** uint32 */
  readonly seed: number;
  readonly pattern: Pattern;
  /** Pages of ram and vram that hold incompressible data in the beginning, parts per million; the others are zero. */
  readonly fillPpm: number;
}

/** The program of one vCPU, ready to run: everything that does not change from operation to operation. */
export interface Program extends ProgramParameters {
  readonly vcpu: number;
  readonly vcpuCount: number;
  readonly vcpuKey: number;
  /** Pages this vCPU owns: number j is page `vcpu + j * vcpuCount` of ram and vram together. Neighbours belong to different vCPUs, so they meet in every word of the dirty log. */
  readonly ownedCount: number;
  readonly hotCount: number;
  /** Pages whose hash (uint32) is below this are filled in the beginning. */
  readonly fillThreshold: number;
  readonly ramPageCount: number;
  readonly vramFirstPage: number;
  readonly romFirstPage: number;
  readonly romPageCount: number;
}

export function programOf(parameters: ProgramParameters, layout: Layout, vcpu: number, vcpuCount: number): Program {
  const [ram, vram, rom] = layout.blocks;
  const ownedCount = Math.ceil((ram.pageCount + vram.pageCount - vcpu) / vcpuCount);
  return {
    seed: parameters.seed,
    pattern: parameters.pattern,
    fillPpm: parameters.fillPpm,
    vcpu,
    vcpuCount,
    vcpuKey: mix(parameters.seed ^ Math.imul(vcpu + 1, 0x85eb_ca6b)),
    ownedCount,
    fillThreshold: (parameters.fillPpm / 1e6) * 4294967296,
    hotCount: Math.max(1, Math.floor(ownedCount * HOT_PAGES)),
    ramPageCount: ram.pageCount,
    vramFirstPage: vram.firstPage,
    romFirstPage: rom.firstPage,
    romPageCount: rom.pageCount,
  };
}

/** A bijection of int32 that spreads every input bit over the whole word (murmur3's finalizer). */
export function mix(x: number): number {
  let h = x ^ (x >>> 16);
  h = Math.imul(h, 0x85eb_ca6b);
  h ^= h >>> 13;
  h = Math.imul(h, 0xc2b2_ae35);
  return h ^ (h >>> 16);
}

/** Key of a flat page: seeds its initial content, its order of places and its values. */
export function keyOf(seed: number, flatPage: number): number {
  return mix(seed ^ Math.imul(flatPage + 1, 0x9e37_79b1));
}

/** Scales a hash to 0..count-1 without a division. Exact: the product stays below `count` in double precision. */
function scale(hash: number, count: number): number {
  return ((hash >>> 0) * (count / 4294967296)) | 0;
}

/** Which of its own pages a vCPU works on in operation `k` (an integer below 2^53). */
export function pick(program: Program, k: number): number {
  const owned = program.ownedCount;
  switch (program.pattern) {
    case 'sequential':
      return k - Math.floor(k / owned) * owned;
    case 'uniform':
      return scale(hashOf(program, k), owned);
    case 'hot-cold': {
      const hash = hashOf(program, k);
      const hot = program.hotCount;
      if (hot === owned || mix(hash ^ 0x2545_f491) >>> 0 < HOT_OPERATIONS * 4294967296) return scale(hash, hot);
      return hot + scale(hash, owned - hot);
    }
    case 'idle':
      return 0;
    default:
      return unreachable(program.pattern);
  }
}

function hashOf(program: Program, k: number): number {
  return mix((program.vcpuKey ^ (k | 0)) + Math.imul((k / 4294967296) | 0, 0x9e37_79b1));
}

/** Flat number of the vCPU's own page `j`. */
export function flatPageOf(program: Program, j: number): number {
  const page = program.vcpu + j * program.vcpuCount;
  return page < program.ramPageCount ? page : page - program.ramPageCount + program.vramFirstPage;
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

/** Place read by the operation that finds version `n`. */
export function peekPlace(key: number, n: number): number {
  return 1 + ((Math.imul(key ^ n, 0x1656_67b1) >>> 0) % PLACES);
}

/** Word at `place` of a page that is filled in the beginning. */
export function initialWord(key: number, place: number): number {
  return scramble(key ^ place);
}

export function isFilled(program: Program, key: number): boolean {
  return mix(key ^ 0x4cf5_ad43) >>> 0 < program.fillThreshold;
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

export function fold(acc: number, version: number, word: number): number {
  const h = Math.imul(acc ^ version, 0x846c_a68b) + word;
  return h ^ (h >>> 15);
}

/** The rom's words, numbered over all its pages; operation k reads one if k is a multiple of ROM_PERIOD. */
export function romWordOf(program: Program, k: number): number {
  return scale(mix(program.vcpuKey + (k | 0)), program.romPageCount * PAGE_WORDS);
}
