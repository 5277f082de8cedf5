/**
 * Header of a block's region in a mapped-ram file, 28 bytes, packed:
 *
 * ```
 * u32 version 1   u64 page size   u64 bitmap offset   u64 pages offset      (offsets in bytes from the start of the file)
 * ```
 * @spec qemu migration/ram.c mapped_ram_setup_ramblock, parse_ramblock_mapped_ram
 */
import type { Reader, Writer } from '../../base/index.ts';
import { unexpected, unsupported } from '../errors.ts';
import { u64Number } from '../fields.ts';
import { wireBitmapBytes } from './bitmap.ts';

export interface MappedRamHeader {
  /** Target page size, bytes. */
  readonly pageSize: number;
  readonly bitmapOffset: number;
  readonly pagesOffset: number;
}

export const MAPPED_RAM_HEADER_BYTES = 28;
const VERSION = 1;

export function encodeMappedRamHeader(writer: Writer, header: MappedRamHeader): void {
  writer.u32(VERSION).u64(header.pageSize).u64(header.bitmapOffset).u64(header.pagesOffset);
}

/**
 * The header that starts at the reader, checked against its place: bitmap behind the header, pages behind the bitmap, page aligned.
 * Both offsets 0: an ignored block without a region (11.0+).
 */
export function decodeMappedRamHeader(
  reader: Reader,
  path: string,
  block: { readonly pageSize: number; readonly usedLength: number },
): MappedRamHeader {
  reader.need(MAPPED_RAM_HEADER_BYTES);
  const at = reader.offset;
  const version = reader.u32();
  if (version !== VERSION) {
    throw unsupported(reader, at, path, 'this version of the mapped-ram header', String(version));
  }
  const pageSize = u64Number(reader, path, 'mapped-ram page size');
  if (pageSize !== block.pageSize) {
    throw unexpected(reader, at + 4, path, 'mapped-ram page size', String(block.pageSize), pageSize);
  }
  const bitmapOffset = u64Number(reader, path, 'bitmap offset');
  const pagesOffset = u64Number(reader, path, 'pages offset');
  if (bitmapOffset === 0 && pagesOffset === 0) return { pageSize, bitmapOffset, pagesOffset };
  if (bitmapOffset < reader.offset) {
    throw unexpected(reader, at + 12, path, 'bitmap offset', `at least ${reader.offset}`, bitmapOffset);
  }
  const bitmapEnd = bitmapOffset + wireBitmapBytes(block.usedLength / pageSize);
  if (pagesOffset < bitmapEnd || pagesOffset % pageSize !== 0) {
    const legal = `a multiple of ${pageSize}, at least ${bitmapEnd}`;
    throw unexpected(reader, at + 20, path, 'pages offset', legal, pagesOffset);
  }
  if (pagesOffset + block.usedLength > Number.MAX_SAFE_INTEGER) {
    throw unexpected(reader, at + 20, path, 'end of the pages', 'below 2^53', pagesOffset + block.usedLength);
  }
  return { pageSize, bitmapOffset, pagesOffset };
}
