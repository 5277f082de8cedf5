/**
 * Where the machine's RAM blocks lie. Pages have one flat number over all blocks, so that the vCPUs' loop finds the memory of a
 * page and its dirty bit without asking for the block: every block begins at a multiple of PAGES_PER_CHUNK.
 *
 *     flat page = block.firstPage + page of the block          chunk = flat page >>> CHUNK_SHIFT
 *
 * A chunk is one view of at most 1 GiB: a SharedArrayBuffer may be larger than 4 GiB, a view of it may not.
 */
import { PAGE_WORDS } from '../../base/index.ts';

export { PAGE_WORDS };

const MIB = 1024 * 1024;

/** Target page size, bytes; PAGE_WORDS is the same in int32 words. */
export const PAGE_SIZE = 4096;

export const CHUNK_SHIFT = 18;
export const PAGES_PER_CHUNK = 1 << CHUNK_SHIFT;
export const CHUNK_BYTES = PAGES_PER_CHUNK * PAGE_SIZE;

/** Bytes. */
export const RAM_BYTES_MIN = MIB;
export const RAM_BYTES_MAX = 2 ** 40;

/** Above the largest RAM. */
export const DEVICE_MEMORY_ADDRESS = 2 ** 42;
/** One chunk. */
export const DEVICE_MEMORY_BYTES_MAX = CHUNK_BYTES;

export interface BlockLayout {
  readonly idstr: string;
  readonly usedLength: number;
  readonly guestAddress: number;
  readonly pageCount: number;
  /** Flat number of the block's page 0, a multiple of PAGES_PER_CHUNK. */
  readonly firstPage: number;
}

export interface Layout {
  /** ram, vram, rom. The vCPUs write the first two and read all three. A fourth belongs to devices that write to guest memory. */
  readonly blocks: readonly [BlockLayout, BlockLayout, BlockLayout, ...BlockLayout[]];
  /** Flat pages, holes included: the dirty log has a bit for each. */
  readonly flatPageCount: number;
}

/** Threads that know nothing of devices leave their memory out: it comes last. */
export function layoutOf(ramBytes: number, deviceBytes = 0): Layout {
  let firstPage = 0;
  const place = (idstr: string, usedLength: number, guestAddress: number): BlockLayout => {
    const block = { idstr, usedLength, guestAddress, pageCount: usedLength / PAGE_SIZE, firstPage };
    firstPage += Math.ceil(block.pageCount / PAGES_PER_CHUNK) * PAGES_PER_CHUNK;
    return block;
  };
  const blocks: Layout['blocks'] = [
    place('workload.ram', ramBytes, 0x1_0000_0000),
    place('workload.vram', MIB, 0xf000_0000),
    place('workload.rom', MIB / 4, 0xfffc_0000),
    ...(deviceBytes === 0 ? [] : [place('workload.device-memory', deviceBytes, DEVICE_MEMORY_ADDRESS)]),
  ];
  return { blocks, flatPageCount: firstPage };
}

/** Views of the blocks' memory as the program uses them: int32 words, by chunk of the flat page number. */
export type Chunks = readonly Int32Array[];

export function chunksOf(layout: Layout, memory: readonly SharedArrayBuffer[]): Int32Array[] {
  const chunks: Int32Array[] = [];
  layout.blocks.forEach((block, index) => {
    for (let at = 0; at < block.usedLength; at += CHUNK_BYTES) {
      const words = (Math.min(CHUNK_BYTES, block.usedLength - at) / PAGE_SIZE) * PAGE_WORDS;
      chunks.push(new Int32Array(memory[index]!, at, words));
    }
  });
  return chunks;
}
