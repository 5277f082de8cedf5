/**
 * Guest RAM as threads reach it that never ask the machine: all of it in shared memory, or all of it in a mapped-ram file. migration hands it
 * from a machine to the data plane without a look inside.
 */
export type SharedRam = MemoryRam | FileRam;

export interface SharedBlock {
  readonly idstr: string;
  /** Bytes, a multiple of the page size. */
  readonly usedLength: number;
}

export interface MemoryBlock extends SharedBlock {
  readonly memory: SharedArrayBuffer;
  /** Where in `memory` the block begins, bytes. */
  readonly byteOffset: number;
}

export interface MemoryRam {
  readonly kind: 'memory';
  /** Target page size, bytes. */
  readonly pageSize: number;
  /** All of it is zero until something is put there: zero pages that come first need nothing. */
  readonly isZero: boolean;
  readonly blocks: readonly MemoryBlock[];
}

export interface FileBlock extends SharedBlock {
  /** File offset of the block's first page, bytes; 0 for a block that is not in the file (x-ignore-shared). */
  readonly pagesOffset: number;
  /**
   * One bit a page (base/bitmap): set if the file has the page, clear if it is zero, whatever the file has at its place. Changed by Atomics, after
   * the page is in the file.
   */
  readonly bitmap: SharedArrayBuffer;
}

export interface FileRam {
  readonly kind: 'file';
  /** For messages. */
  readonly path: string;
  readonly pageSize: number;
  /** The machine's: whoever uses it when the machine may have closed it has a duplicate. Read and written at positions only. */
  readonly fd: number;
  /** `fd` goes past the page cache (O_DIRECT): memory, places and lengths are multiples of DIRECT_IO_ALIGNMENT. */
  readonly direct: boolean;
  readonly blocks: readonly FileBlock[];
  /** One word a block, not 0 once any page of it has come, zero pages included. */
  readonly touched: SharedArrayBuffer;
}
