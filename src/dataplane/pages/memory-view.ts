import { mayBeZeroPage } from '../../base/index.ts';
import type { MemoryRam } from '../../machine/index.ts';
import { addressOf, plainView } from '../../native/index.ts';
import { MULTIFD_PACKET_PAGES_BYTES } from '../../wire/multifd/index.ts';

/** A view may not be larger than 4 GiB, a block may: views are by chunk of 1 GiB. */
export const CHUNK_BYTES = 1024 * 1024 * 1024;

/** As many zeros as a batch can have: a comparison of a whole run costs half of what one comparison for each page does. */
const ZEROS = Buffer.alloc(MULTIFD_PACKET_PAGES_BYTES);

/** One thread's view of RAM in memory. It holds the memory, so addresses taken from it stay good as long as it lives. */
export class MemoryView {
  readonly #pageSize: number;
  /** Of each block's first byte. */
  readonly addresses: Float64Array;
  readonly #chunks: readonly (readonly Buffer[])[];

  constructor(ram: MemoryRam) {
    this.#pageSize = ram.pageSize;
    this.#chunks = ram.blocks.map(({ memory, byteOffset, usedLength }) =>
      Array.from({ length: Math.ceil(usedLength / CHUNK_BYTES) }, (_, chunk) => {
        const at = chunk * CHUNK_BYTES;
        return plainView(Buffer.from(memory, byteOffset + at, Math.min(CHUNK_BYTES, usedLength - at)));
      }),
    );
    this.addresses = Float64Array.from(this.#chunks, (chunks) => addressOf(chunks[0]!));
  }

  mayBeZero(block: number, offset: number): boolean {
    return mayBeZeroPage(this.chunk(block, offset), offset % CHUNK_BYTES, this.#pageSize);
  }

  /** How many of the `pages` pages at `offset` are zero, from the first one on. Up to a batch of them. */
  zeroPages(block: number, offset: number, pages: number): number {
    const pageSize = this.#pageSize;
    const bytes = this.chunk(block, offset);
    const at = offset % CHUNK_BYTES;
    const length = Math.min(pages * pageSize, bytes.length - at);
    if (bytes.compare(ZEROS, 0, length, at, at + length) === 0) return length / pageSize;
    // Bounded by itself: a guest may be making zero what was not.
    let end = at;
    while (end < at + length && bytes.compare(ZEROS, 0, pageSize, end, end + pageSize) === 0) end += pageSize;
    return (end - at) / pageSize;
  }

  copyPage(block: number, offset: number, into: Buffer, at: number): void {
    const from = offset % CHUNK_BYTES;
    this.chunk(block, offset).copy(into, at, from, from + this.#pageSize);
  }

  /** Memory that holds the page, which begins at `offset % CHUNK_BYTES` of it. */
  chunk(block: number, offset: number): Buffer {
    return this.#chunks[block]![Math.floor(offset / CHUNK_BYTES)]!;
  }

  /** Makes `pages` neighbours zero. Looks first: writing zeros into fresh memory would make the host back it. */
  clearPages(block: number, offset: number, pages: number): void {
    const pageSize = this.#pageSize;
    for (let done = 0; done < pages; ) {
      const at = offset + done * pageSize;
      const zero = this.zeroPages(block, at, pages - done);
      if (zero === 0) ZEROS.copy(this.chunk(block, at), at % CHUNK_BYTES, 0, pageSize);
      done += Math.max(zero, 1);
    }
  }
}
