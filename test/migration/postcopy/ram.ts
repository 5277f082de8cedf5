/** What the tests of postcopy's pure parts share: blocks of odd sizes and page sizes, and arbitrary sets of their pages. */
import fc from 'fast-check';
import { newBitmap, setBit, testBit } from '../../../src/base/index.ts';
import type { RamBlock } from '../../../src/machine/index.ts';

export const PAGE = 4096;

export function blockOf(idstr: string, pageCount: number, hostPages = 1, index = 0): RamBlock {
  return { index, idstr, usedLength: pageCount * PAGE, pageSize: hostPages * PAGE, guestAddress: 0, shared: false };
}

export function bitmapOf(pageCount: number, pages: Iterable<number>): Uint32Array {
  const map = newBitmap(pageCount);
  for (const page of pages) setBit(map, page);
  return map;
}

export function pagesOf(map: Uint32Array, pageCount: number): number[] {
  return Array.from({ length: pageCount }, (_, page) => page).filter((page) => testBit(map, page));
}

export interface ArbitraryRam {
  readonly blocks: readonly RamBlock[];
  /** Dirty target pages of each block. */
  readonly dirty: readonly ReadonlySet<number>[];
}

const block = fc
  .record({ hostPages: fc.constantFrom(1, 2, 8, 32, 128), count: fc.integer({ min: 1, max: 90 }) })
  .chain(({ hostPages, count }) => {
    const pageCount = hostPages * Math.max(1, Math.ceil(count / hostPages));
    const runs = fc.array(fc.tuple(fc.nat(pageCount - 1), fc.integer({ min: 1, max: 40 })), { maxLength: 30 });
    return runs.map((list) => {
      const pages = new Set(list.flatMap(([first, length]) => Array.from({ length }, (_, i) => first + i)));
      return { hostPages, pageCount, pages: new Set([...pages].filter((page) => page < pageCount)) };
    });
  });

export const arbitraryRam: fc.Arbitrary<ArbitraryRam> = fc.array(block, { minLength: 1, maxLength: 4 }).map((list) => ({
  blocks: list.map(({ pageCount, hostPages }, index) => blockOf(`block${index}`, pageCount, hostPages, index)),
  dirty: list.map(({ pages }) => pages),
}));
