/**
 * Where everything lies in a mapped-ram file. The block list of the ram START section is spread over it:
 *
 * ```
 * ..., MEM_SIZE | name, length, [guest address], header | bitmap | (to 1 MiB) pages | name, length, ... | EOS, footer, ...
 * ```
 * @spec qemu migration/ram.c mapped_ram_setup_ramblock
 */
import type { AnnouncedBlock } from '../ram/sink.ts';
import { wireBitmapBytes } from './bitmap.ts';
import { MAPPED_RAM_HEADER_BYTES, type MappedRamHeader } from './header.ts';

/** Pages start at a multiple of this in the file, bytes; whatever the offset at which the stream begins. */
export const MAPPED_RAM_ALIGNMENT = 1024 * 1024;

export interface MappedRamPlace extends MappedRamHeader {
  /** File offset of the block's entry in the list (its name). */
  readonly entryOffset: number;
  readonly bitmapBytes: number;
  /** File offset behind the pages: the next block's entry, or the EOS record. */
  readonly end: number;
}

/**
 * `position`: file offset right behind the MEM_SIZE record. Blocks without `usedLength` bytes of their own in the file (ignored shared
 * ones) do not belong in a file that we write.
 */
export function mappedRamLayout(
  position: number,
  blocks: readonly AnnouncedBlock[],
  pageSize: number,
): MappedRamPlace[] {
  let entryOffset = position;
  return blocks.map((block) => {
    const entryBytes =
      1 + block.idstr.length + 8 + (block.guestAddress === undefined ? 0 : 8) + MAPPED_RAM_HEADER_BYTES;
    const bitmapOffset = entryOffset + entryBytes;
    const bitmapBytes = wireBitmapBytes(block.usedLength / pageSize);
    const pagesOffset = Math.ceil((bitmapOffset + bitmapBytes) / MAPPED_RAM_ALIGNMENT) * MAPPED_RAM_ALIGNMENT;
    const place = {
      entryOffset,
      pageSize,
      bitmapOffset,
      bitmapBytes,
      pagesOffset,
      end: pagesOffset + block.usedLength,
    };
    entryOffset = place.end;
    return place;
  });
}
