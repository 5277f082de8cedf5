/**
 * The state of an emulated VF: pages in shared memory that the running device changes, operation by operation, by a program whose
 * every effect is known (base/page-content.ts). A bit a page says what has changed since it was last put into the stream.
 */
import {
  bitmapWords,
  initialWord,
  keyOf,
  mix,
  PAGE_WORDS,
  pageAt,
  placeOf,
  scale,
  setBit,
  writtenWord,
} from '../../base/index.ts';
import { VF_PAGE_BYTES } from './options.ts';

export interface VfVerdict {
  readonly pagesChecked: number;
  /** Pages that are not what the device's own count of operations says; the first of them. */
  readonly pagesBad: number;
  readonly firstBad: number | undefined;
}

export class VfState {
  readonly pageCount: number;
  readonly bytes: Buffer;
  /** Pages that are not in the stream as they are now. */
  readonly changed: Uint32Array;
  readonly #words: Int32Array;
  readonly #workingPages: number;
  seed: number;
  operations = 0;

  constructor(stateBytes: number, workingBytes: number, seed: number) {
    const memory = new SharedArrayBuffer(stateBytes);
    this.bytes = Buffer.from(memory);
    this.#words = new Int32Array(memory);
    this.pageCount = stateBytes / VF_PAGE_BYTES;
    this.changed = new Uint32Array(bitmapWords(this.pageCount));
    this.#workingPages = Math.min(this.pageCount, workingBytes / VF_PAGE_BYTES);
    this.seed = seed;
  }

  /** A fresh device. */
  fill(): void {
    const words = this.#words;
    for (let page = 0; page < this.pageCount; page++) {
      const key = keyOf(this.seed, page);
      const base = page * PAGE_WORDS;
      words[base] = 0;
      for (let place = 1; place < PAGE_WORDS; place++) words[base + place] = initialWord(key, place);
    }
    this.operations = 0;
  }

  run(count: number): void {
    const words = this.#words;
    for (let k = this.operations; k < this.operations + count; k++) {
      const page = pickPage(this.seed, k, this.#workingPages);
      const key = keyOf(this.seed, page);
      const base = page * PAGE_WORDS;
      const next = (words[base]! + 1) | 0;
      words[base] = next;
      words[base + placeOf(key, next)] = writtenWord(key, next);
      setBit(this.changed, page);
    }
    this.operations += count;
  }

  verify(): VfVerdict {
    return verifyPages(this.#words, this.seed, this.operations, {
      pageCount: this.pageCount,
      workingPages: this.#workingPages,
      filled: true,
    });
  }
}

/** Page that operation `k` works on. */
export function pickPage(seed: number, k: number, pageCount: number): number {
  return scale(mix((seed ^ 0x5bd1_e995 ^ (k | 0)) + Math.imul((k / 4294967296) | 0, 0x9e37_79b1)), pageCount);
}

/** Compares pages with what `operations` operations must have left in them. */
export function verifyPages(
  words: Int32Array,
  seed: number,
  operations: number,
  memory: { readonly pageCount: number; readonly workingPages: number; readonly filled: boolean },
): VfVerdict {
  const counts = pageCounts(seed, operations, memory.workingPages);
  const expected = new Int32Array(PAGE_WORDS);
  const expectedBytes = Buffer.from(expected.buffer);
  const bytes = Buffer.from(words.buffer, words.byteOffset, words.byteLength);
  let pagesBad = 0;
  let firstBad: number | undefined;
  for (let page = 0; page < memory.pageCount; page++) {
    pageAt(keyOf(seed, page), memory.filled, counts[page] ?? 0, expected);
    const at = page * VF_PAGE_BYTES;
    if (expectedBytes.compare(bytes, at, at + VF_PAGE_BYTES) === 0) continue;
    pagesBad++;
    firstBad ??= page;
  }
  return { pagesChecked: memory.pageCount, pagesBad, firstBad };
}

/** How often each page was worked on. */
export function pageCounts(seed: number, operations: number, workingPages: number): Int32Array {
  const counts = new Int32Array(workingPages);
  for (let k = 0; k < operations; k++) counts[pickPage(seed, k, workingPages)]!++;
  return counts;
}
