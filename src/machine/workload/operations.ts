/** The hot loop of a vCPU: free functions over preallocated views, no allocation, no call that is not inlined. */
import { markDirty } from './dirty-log.ts';
import { CHUNK_SHIFT, type Chunks, PAGE_WORDS, PAGES_PER_CHUNK } from './layout.ts';
import {
  flatPageOf,
  fold,
  initialWord,
  isFilled,
  keyOf,
  type Program,
  pageAt,
  peekPlace,
  pick,
  placeOf,
  ROM_PERIOD,
  romWordOf,
  writtenWord,
} from './program.ts';

const CHUNK_MASK = PAGES_PER_CHUNK - 1;
const WORDS_SHIFT = 10;

/** Executes operations first .. first + count - 1; returns the accumulator after them. `log` undefined: no logging. */
export function runOperations(
  program: Program,
  chunks: Chunks,
  log: Int32Array | undefined,
  first: number,
  count: number,
  accumulator: number,
): number {
  const seed = program.seed;
  let acc = accumulator;
  for (let k = first; k < first + count; k++) {
    const page = flatPageOf(program, pick(program, k));
    const key = keyOf(seed, page);
    const words = chunks[page >>> CHUNK_SHIFT]!;
    const base = (page & CHUNK_MASK) << WORDS_SHIFT;
    const version = words[base]!;
    acc = fold(acc, version, words[base + peekPlace(key, version)]!);
    const next = (version + 1) | 0;
    words[base] = next;
    words[base + placeOf(key, next)] = writtenWord(key, next);
    if (log !== undefined) markDirty(log, page);
    if ((k & (ROM_PERIOD - 1)) === 0) acc = fold(acc, 0, readRom(program, chunks, k));
  }
  return acc;
}

/**
 * How many operations from `first` on, `count` at most, touch no page that is absent. A page that is there stays there, so they can be run whoever
 * places pages meanwhile.
 */
export function runnableOperations(program: Program, present: Int32Array, first: number, count: number): number {
  for (let k = first; k < first + count; k++) if (absentPage(program, present, k) >= 0) return k - first;
  return count;
}

/** The first page that operation `k` touches and that is absent, by its flat number; -1 if all are there. */
export function absentPage(program: Program, present: Int32Array, k: number): number {
  const page = flatPageOf(program, pick(program, k));
  if (!isPresent(present, page)) return page;
  if ((k & (ROM_PERIOD - 1)) !== 0) return -1;
  const rom = program.romFirstPage + (romWordOf(program, k) >>> WORDS_SHIFT);
  return isPresent(present, rom) ? -1 : rom;
}

function isPresent(present: Int32Array, flatPage: number): boolean {
  return (Atomics.load(present, flatPage >>> 5) & (1 << (flatPage & 31))) !== 0;
}

function readRom(program: Program, chunks: Chunks, k: number): number {
  return chunks[program.romFirstPage >>> CHUNK_SHIFT]![romWordOf(program, k)]!;
}

/** Writes the initial content of the vCPU's pages into fresh (zero) memory; vCPU 0 also writes the rom. */
export function fillOwnPages(program: Program, chunks: Chunks): void {
  const page = new Int32Array(PAGE_WORDS);
  for (let j = 0; j < program.ownedCount; j++) {
    const flatPage = flatPageOf(program, j);
    const key = keyOf(program.seed, flatPage);
    if (!isFilled(program, key)) continue;
    pageAt(key, true, 0, page);
    chunks[flatPage >>> CHUNK_SHIFT]!.set(page, (flatPage & CHUNK_MASK) << WORDS_SHIFT);
  }
  if (program.vcpu !== 0) return;
  for (let i = 0; i < program.romPageCount; i++) {
    const key = keyOf(program.seed, program.romFirstPage + i);
    const words = chunks[program.romFirstPage >>> CHUNK_SHIFT]!;
    for (let place = 0; place < PAGE_WORDS; place++) words[i * PAGE_WORDS + place] = initialWord(key, place);
  }
}
