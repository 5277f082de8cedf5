import { clearRange, newBitmap, nextSetBit, nowNs, pageKey, setRange } from '../../base/index.ts';
import type { AnnouncedBlock, MissingRam, PageFault } from '../machine.ts';

/** Host pages that are asked for at a time: enough to keep the source's answers coming, and few that another order would serve better. */
const ASKED_MAX = 32;

/** A checkpoint being filled by postcopy: nobody runs, so it asks for what is missing itself, in the order of the file. */
export class WantedPages implements MissingRam {
  readonly runsEarly = false;
  readonly vcpuCount = 0;
  readonly pageSizes: readonly number[];
  readonly #hostPages: readonly number[];
  readonly #pageCounts: readonly number[];
  readonly #missing: readonly Uint32Array[];
  readonly #asked = new Set<number>();
  #fault: (fault: PageFault) => void = () => {};
  /** What is in front of this place has been asked for. */
  #block = 0;
  #page = 0;

  /** Pages of the blocks are as large as the stream says, else target pages: a file takes any. */
  constructor(blocks: readonly AnnouncedBlock[], targetPageSize: number) {
    this.pageSizes = blocks.map(({ pageSize }) => pageSize ?? targetPageSize);
    this.#hostPages = this.pageSizes.map((size) => size / targetPageSize);
    this.#pageCounts = blocks.map(({ usedLength }) => usedLength / targetPageSize);
    this.#missing = this.#pageCounts.map((count) => newBitmap(count));
  }

  drop(block: number, page: number, count: number): void {
    setRange(this.#missing[block]!, page, count);
  }

  async begin(fault: (fault: PageFault) => void): Promise<void> {
    this.#fault = fault;
    this.#ask();
  }

  place(block: number, page: number, count: number): void {
    clearRange(this.#missing[block]!, page, count);
    if (this.#asked.delete(pageKey(block, page))) this.#ask();
  }

  async end(): Promise<void> {}

  #ask(): void {
    while (this.#asked.size < ASKED_MAX && this.#block < this.#missing.length) {
      const block = this.#block;
      const page = nextSetBit(this.#missing[block]!, this.#page, this.#pageCounts[block]!);
      if (page < 0) {
        this.#block++;
        this.#page = 0;
        continue;
      }
      this.#page = page + this.#hostPages[block]!;
      this.#asked.add(pageKey(block, page));
      this.#fault({ vcpu: undefined, block, page, sinceNs: nowNs() });
    }
  }
}
