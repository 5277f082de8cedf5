import type { MemoryRam } from '../../machine/index.ts';
import { addressOf } from '../../native/index.ts';

/** A view may not be larger than 4 GiB, a block may: views are by chunk of 1 GiB. */
export const CHUNK_BYTES = 1024 * 1024 * 1024;

/** One thread's view of RAM in memory. It holds the memory, so addresses taken from it stay good as long as it lives. */
export class MemoryView {
  readonly #pageSize: number;
  readonly #zeroPage: Buffer;
  /** Of each block's first byte. */
  readonly addresses: Float64Array;
  readonly #chunks: readonly (readonly Buffer[])[];

  constructor(ram: MemoryRam) {
    this.#pageSize = ram.pageSize;
    this.#zeroPage = Buffer.alloc(ram.pageSize);
    this.#chunks = ram.blocks.map(({ memory, byteOffset, usedLength }) =>
      Array.from({ length: Math.ceil(usedLength / CHUNK_BYTES) }, (_, chunk) => {
        const at = chunk * CHUNK_BYTES;
        return Buffer.from(memory, byteOffset + at, Math.min(CHUNK_BYTES, usedLength - at));
      }),
    );
    this.addresses = Float64Array.from(this.#chunks, (chunks) => addressOf(chunks[0]!));
  }

  isZero(block: number, offset: number): boolean {
    const pageSize = this.#pageSize;
    const bytes = this.chunk(block, offset);
    const at = offset % CHUNK_BYTES;
    // A look at three bytes spares most pages with content the comparison, which costs as much as a copy.
    if ((bytes[at]! | bytes[at + pageSize / 2 + 8]! | bytes[at + pageSize - 1]!) !== 0) return false;
    return bytes.compare(this.#zeroPage, 0, pageSize, at, at + pageSize) === 0;
  }

  copyPage(block: number, offset: number, into: Buffer, at: number): void {
    const from = offset % CHUNK_BYTES;
    this.chunk(block, offset).copy(into, at, from, from + this.#pageSize);
  }

  /** Memory that holds the page, which begins at `offset % CHUNK_BYTES` of it. */
  chunk(block: number, offset: number): Buffer {
    return this.#chunks[block]![Math.floor(offset / CHUNK_BYTES)]!;
  }

  /** Looks first: writing zeros into fresh memory would make the host back it. */
  clearPage(block: number, offset: number): void {
    if (this.isZero(block, offset)) return;
    this.#zeroPage.copy(this.chunk(block, offset), offset % CHUNK_BYTES);
  }
}
