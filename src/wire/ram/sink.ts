/** Where pages of a RAM section go. Called per page: synchronous, no allocation. `block` is the index in the announced list. */
export interface RamSink {
  /** P bytes of `from` at `at` become the page at byte `offset` of the block. */
  page(block: number, offset: number, from: Buffer, at: number): void;
  /** The page at `offset` becomes zero. */
  zero(block: number, offset: number): void;
  /** The current content of the page, into `into` at 0 (the base of an XBZRLE record). */
  read(block: number, offset: number, into: Buffer): void;
}

/** Memory of a block that pages may be put into without `page`. */
export interface FreshRun {
  /** The pages' bytes; all zero. */
  readonly bytes: Buffer;
  readonly address: number;
}

/** A sink whose memory can be filled from outside, as long as nothing has been put there before. */
export interface DirectSink extends RamSink {
  /** Pages from byte `offset` on that nothing has been put into, `pagesMax` at most; undefined if there are none to be had. */
  fresh(block: number, offset: number, pagesMax: number): FreshRun | undefined;
  /** The first `pageCount` pages at `offset` are in place now. */
  filled(block: number, offset: number, pageCount: number): void;
}

/** One block as the stream announces it (START section of ram). */
export interface AnnouncedBlock {
  readonly idstr: string;
  /** Bytes, a multiple of the target page size, never 0. */
  readonly usedLength: number;
  /** Host page size backing the block, bytes. Present only if the stream carries it (qemu-wire 3.1). */
  readonly pageSize?: number;
  /** Offset in guest physical memory, bytes; with x-ignore-shared only. */
  readonly guestAddress?: number;
}

/** Page records seen, by kind. */
export interface RamCounts {
  normal: number;
  zero: number;
  xbzrle: number;
  /** Bytes of XBZRLE bodies. */
  xbzrleBytes: number;
}

export function noPages(): RamCounts {
  return { normal: 0, zero: 0, xbzrle: 0, xbzrleBytes: 0 };
}
