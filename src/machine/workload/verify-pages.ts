/** Recomputes what vCPUs must have left behind: replays their picks for the page counts, then compares each page's closed form. */
import { CHUNK_SHIFT, type Chunks, type Layout, PAGE_SIZE, PAGE_WORDS, PAGES_PER_CHUNK } from './layout.ts';
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
  ROM_PERIOD,
  romWordOf,
  wordAt,
} from './program.ts';

/** A word that is not what the program leaves there; `offset` is in bytes from the start of the page. */
export interface BadWord {
  readonly block: string;
  readonly page: number;
  readonly offset: number;
  readonly expected: number;
  readonly found: number;
}

/** The accumulator does not follow from the number of operations that the vCPU says it has done: one of the two is wrong. */
export interface BadRegister {
  readonly vcpu: number;
  readonly operations: number;
  readonly expected: number;
  readonly found: number;
}

export interface Verdict {
  readonly pagesChecked: number;
  readonly pagesBad: number;
  /** The first bad word of the first BAD_LISTED_MAX bad pages. */
  readonly bad: readonly BadWord[];
  readonly registersBad: readonly BadRegister[];
}

const BAD_LISTED_MAX = 8;

export class PageVerifier {
  readonly #layout: Layout;
  readonly #bytes: readonly Buffer[];
  readonly #expected = new Int32Array(PAGE_WORDS);
  readonly #expectedBytes = Buffer.from(this.#expected.buffer);
  readonly #bad: BadWord[] = [];
  readonly #registersBad: BadRegister[] = [];
  #pagesChecked = 0;
  #pagesBad = 0;

  constructor(layout: Layout, chunks: Chunks) {
    this.#layout = layout;
    this.#bytes = chunks.map((chunk) => Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength));
  }

  get verdict(): Verdict {
    return {
      pagesChecked: this.#pagesChecked,
      pagesBad: this.#pagesBad,
      bad: this.#bad,
      registersBad: this.#registersBad,
    };
  }

  /** All pages of one vCPU, and its registers. */
  vcpu(program: Program, operations: number, accumulator: number): void {
    const counts = new Int32Array(program.ownedCount);
    const expected = replay(program, operations, counts);
    if (expected !== accumulator) {
      this.#registersBad.push({ vcpu: program.vcpu, operations, expected, found: accumulator });
    }
    for (let j = 0; j < program.ownedCount; j++) {
      const page = flatPageOf(program, j);
      const key = keyOf(program.seed, page);
      pageAt(key, isFilled(program, key), counts[j]!, this.#expected);
      this.#compare(page);
    }
  }

  rom(program: Program): void {
    for (let i = 0; i < program.romPageCount; i++) {
      const key = keyOf(program.seed, program.romFirstPage + i);
      for (let place = 0; place < PAGE_WORDS; place++) this.#expected[place] = initialWord(key, place);
      this.#compare(program.romFirstPage + i);
    }
  }

  #compare(flatPage: number): void {
    this.#pagesChecked++;
    const bytes = this.#bytes[flatPage >>> CHUNK_SHIFT]!;
    const start = (flatPage % PAGES_PER_CHUNK) * PAGE_SIZE;
    if (this.#expectedBytes.compare(bytes, start, start + PAGE_SIZE) === 0) return;
    this.#pagesBad++;
    if (this.#bad.length < BAD_LISTED_MAX) this.#bad.push(this.#firstBadWord(flatPage, bytes, start));
  }

  #firstBadWord(flatPage: number, bytes: Buffer, start: number): BadWord {
    const block = this.#layout.blocks.findLast(({ firstPage }) => firstPage <= flatPage)!;
    let offset = 0;
    while (bytes.readInt32LE(start + offset) === this.#expectedBytes.readInt32LE(offset)) offset += 4;
    return {
      block: block.idstr,
      page: flatPage - block.firstPage,
      offset,
      expected: this.#expectedBytes.readUInt32LE(offset),
      found: bytes.readUInt32LE(start + offset),
    };
  }
}

/** Adds to `counts` how often each own page was worked on; returns the accumulator after `operations` operations. */
function replay(program: Program, operations: number, counts: Int32Array): number {
  let acc = 0;
  for (let k = 0; k < operations; k++) {
    const j = pick(program, k);
    const page = flatPageOf(program, j);
    const key = keyOf(program.seed, page);
    const version = counts[j]!;
    acc = fold(acc, version, wordAt(key, isFilled(program, key), peekPlace(key, version), version));
    counts[j] = version + 1;
    if ((k & (ROM_PERIOD - 1)) === 0) acc = fold(acc, 0, romWord(program, romWordOf(program, k)));
  }
  return acc;
}

function romWord(program: Program, index: number): number {
  const page = program.romFirstPage + Math.floor(index / PAGE_WORDS);
  return initialWord(keyOf(program.seed, page), index % PAGE_WORDS);
}
