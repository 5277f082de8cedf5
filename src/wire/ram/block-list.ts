/**
 * Block list of the ram START section.
 *
 * ```
 * u64 total|MEM_SIZE, then for each block until the lengths add up to the total:
 *   cstr name, u64 used length
 *   [u64 host page size]      with postcopy-ram, only blocks whose page size is not the usual one
 *   [u64 guest address]       with x-ignore-shared, every block
 *   [28 bytes]                with mapped-ram; then the stream skips to the end of the block's region
 * ```
 * @spec qemu migration/ram.c ram_save_setup, parse_ramblock
 */
import type { Reader, Writer } from '../../base/index.ts';
import { unexpected } from '../errors.ts';
import { nameField, u64Number } from '../fields.ts';
import { decodeMappedRamHeader, encodeMappedRamHeader } from '../mapped-ram/header.ts';
import type { StreamRamBlock } from '../stream/events.ts';
import { RAM_FLAG } from './flags.ts';

export const RAM_SECTION_VERSION = 4;

/** MEM_SIZE and the list; the fields that are present in a block are written. Not for mapped-ram, where regions lie between blocks. */
export function encodeRamBlockList(writer: Writer, blocks: readonly StreamRamBlock[]): void {
  encodeRamTotal(
    writer,
    blocks.reduce((sum, block) => sum + block.usedLength, 0),
  );
  for (const block of blocks) encodeRamBlock(writer, block);
}

export function encodeRamTotal(writer: Writer, totalBytes: number): void {
  writer.u64(totalBytes + RAM_FLAG.MEM_SIZE);
}

export function encodeRamBlock(writer: Writer, block: StreamRamBlock): void {
  writer.cstr(block.idstr).u64(block.usedLength);
  if (block.pageSize !== undefined) writer.u64(block.pageSize);
  if (block.guestAddress !== undefined) writer.u64(block.guestAddress);
  if (block.mapped !== undefined) encodeMappedRamHeader(writer, block.mapped);
}

export interface BlockListLayout {
  /** Target page size, bytes. */
  readonly pageSize: number;
  /** OR of all host page sizes from POSTCOPY_ADVISE; undefined without postcopy-ram. */
  readonly pageSizeSummary: bigint | undefined;
  readonly ignoreShared: boolean;
  readonly mappedRam: boolean;
}

export function decodeRamBlock(reader: Reader, layout: BlockListLayout): StreamRamBlock {
  const idstr = nameField(reader, 'block list', 'block name');
  const path = `block ${idstr}`;
  const at = reader.offset;
  const usedLength = u64Number(reader, path, 'used length');
  if (usedLength === 0 || usedLength % layout.pageSize !== 0) {
    throw unexpected(reader, at, path, 'used length', `a multiple of ${layout.pageSize}, not 0`, usedLength);
  }
  const pageSize = layout.pageSizeSummary === undefined ? undefined : optionalPageSize(reader, path, layout);
  const guestAddress = layout.ignoreShared ? u64Number(reader, path, 'guest address') : undefined;
  const mapped = layout.mappedRam
    ? decodeMappedRamHeader(reader, path, { pageSize: layout.pageSize, usedLength })
    : undefined;
  return {
    idstr,
    usedLength,
    ...(pageSize === undefined ? {} : { pageSize }),
    ...(guestAddress === undefined ? {} : { guestAddress }),
    ...(mapped === undefined ? {} : { mapped }),
  };
}

/**
 * Nothing marks the presence of the page size, but what would stand there instead cannot be mistaken for one: a page size starts with
 * a zero byte and has no bit below the target page size, the next block's name starts with its length (never 0), and a record has flags.
 */
function optionalPageSize(reader: Reader, path: string, layout: BlockListLayout): number | undefined {
  if (reader.peekU8() !== 0) return undefined;
  reader.need(8);
  if ((reader.bytes.readUInt32BE(reader.pos + 4) & (layout.pageSize - 1)) !== 0) return undefined;
  const at = reader.offset;
  const pageSize = u64Number(reader, path, 'page size');
  const bit = BigInt(pageSize);
  if (pageSize === 0 || (bit & (bit - 1n)) !== 0n || ((layout.pageSizeSummary ?? 0n) & bit) === 0n) {
    const legal = `a power of two of those in POSTCOPY_ADVISE (0x${layout.pageSizeSummary?.toString(16)})`;
    throw unexpected(reader, at, path, 'page size', legal, pageSize);
  }
  return pageSize;
}
