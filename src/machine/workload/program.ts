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
 * What a page holds after so many operations on it is known in closed form (base/page-content.ts).
 */
import {
  initialWord,
  keyOf,
  lastVersionAt,
  mix,
  PAGE_WORDS,
  PLACES,
  pageAt,
  placeOf,
  scale,
  unreachable,
  wordAt,
  writtenWord,
} from '../../base/index.ts';
import type { Layout } from './layout.ts';

/** What pages hold is base/page-content.ts; the vCPUs' code finds it here with the rest of the program. */
export { initialWord, keyOf, lastVersionAt, mix, pageAt, placeOf, wordAt, writtenWord };

export const PATTERNS = ['uniform', 'hot-cold', 'sequential', 'idle'] as const;
export type Pattern = (typeof PATTERNS)[number];

/** hot-cold: this share of the operations falls on this share of the pages. */
const HOT_OPERATIONS = 0.9;
const HOT_PAGES = 0.1;

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

/** Place read by the operation that finds version `n`. */
export function peekPlace(key: number, n: number): number {
  return 1 + ((Math.imul(key ^ n, 0x1656_67b1) >>> 0) % PLACES);
}

export function isFilled(program: Program, key: number): boolean {
  return mix(key ^ 0x4cf5_ad43) >>> 0 < program.fillThreshold;
}

export function fold(acc: number, version: number, word: number): number {
  const h = Math.imul(acc ^ version, 0x846c_a68b) + word;
  return h ^ (h >>> 15);
}

/** The rom's words, numbered over all its pages; operation k reads one if k is a multiple of ROM_PERIOD. */
export function romWordOf(program: Program, k: number): number {
  return scale(mix(program.vcpuKey + (k | 0)), program.romPageCount * PAGE_WORDS);
}
