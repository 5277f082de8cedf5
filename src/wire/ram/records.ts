/**
 * Records of a RAM section, written into a preallocated buffer at `pos`; each returns the position behind what it wrote.
 *
 * ```
 * u64 offset|flags   [u8 length, block name: unless CONTINUE]   ZERO: u8 0   PAGE: P bytes   XBZRLE: u8 1, u16 length, body
 * ```
 * `offset` is that of the page inside its block in bytes: a multiple of the page size, below 2^53. `name` is the block's name in
 * latin1, without its length; undefined if the block is the one that was named last on this channel (CONTINUE).
 * The caller has room: RAM_RECORD_HEADER_MAX bytes and a page.
 * @spec qemu migration/ram.c save_page_header, save_zero_page, save_xbzrle_page
 */
import type { Writer } from '../../base/index.ts';
import { RAM_FLAG } from './flags.ts';

/** u64, u8 and the longest name, and the 3 bytes in front of an XBZRLE body. */
export const RAM_RECORD_HEADER_MAX = 8 + 1 + 255 + 3;
export const RAM_CONTROL_RECORD_BYTES = 8;
/** A page record's header with CONTINUE. */
export const PAGE_HEADER_BYTES = 8;
/** First byte after the names of an XBZRLE record: the only encoding there is. */
export const XBZRLE_ENCODING = 1;

const PAGE_CONTINUE = RAM_FLAG.PAGE | RAM_FLAG.CONTINUE;

type Name = Uint8Array | undefined;

/** A whole page record; the page is `from[at .. at + pageSize)`. */
export function writePageRecord(
  into: Buffer,
  pos: number,
  offset: number,
  name: Name,
  from: Buffer,
  at: number,
  pageSize: number,
): number {
  const body = writePageHeader(into, pos, offset, name);
  from.copy(into, body, at, at + pageSize);
  return body + pageSize;
}

/** All of a page record but the page, which must follow. */
export function writePageHeader(into: Buffer, pos: number, offset: number, name: Name): number {
  return writeRecordHeader(into, pos, offset, RAM_FLAG.PAGE, name);
}

/** Whether the 8 bytes at `at` begin a record of the page at `offset` of the block named last (PAGE, CONTINUE). */
export function isPageHeader(bytes: Buffer, at: number, offset: number): boolean {
  const low = bytes.readUInt32BE(at + 4);
  return low === (offset + PAGE_CONTINUE) >>> 0 && bytes.readUInt32BE(at) === Math.floor(offset / 0x1_0000_0000);
}

export function writeZeroRecord(into: Buffer, pos: number, offset: number, name: Name): number {
  const end = writeRecordHeader(into, pos, offset, RAM_FLAG.ZERO, name);
  into[end] = 0;
  return end + 1;
}

/** All of an XBZRLE record but its body of `length` bytes, which must follow (see xbzrleHeaderSize, xbzrleEncode). */
export function writeXbzrleHeader(into: Buffer, pos: number, offset: number, name: Name, length: number): number {
  const end = writeRecordHeader(into, pos, offset, RAM_FLAG.XBZRLE, name);
  into[end] = XBZRLE_ENCODING;
  into.writeUInt16BE(length, end + 1);
  return end + 3;
}

/** Bytes that writeXbzrleHeader will take: the body is encoded first, behind them. */
export function xbzrleHeaderSize(name: Name): number {
  return name === undefined ? 11 : 12 + name.length;
}

/** End of the section's body. */
export function writeEos(into: Buffer, pos: number): number {
  return writeAddress(into, pos, RAM_FLAG.EOS);
}

/** The point where all multifd channels meet (8.1+). */
export function writeMultifdFlush(into: Buffer, pos: number): number {
  return writeAddress(into, pos, RAM_FLAG.MULTIFD_FLUSH);
}

export function encodeMultifdFlush(writer: Writer): void {
  writer.u64(RAM_FLAG.MULTIFD_FLUSH);
}

export function encodeRamEos(writer: Writer): void {
  writer.u64(RAM_FLAG.EOS);
}

function writeRecordHeader(into: Buffer, pos: number, offset: number, flag: number, name: Name): number {
  if (name === undefined) return writeAddress(into, pos, offset + (flag | RAM_FLAG.CONTINUE));
  const end = writeAddress(into, pos, offset + flag);
  const length = name.length;
  into[end] = length;
  for (let i = 0; i < length; i++) into[end + 1 + i] = name[i]!;
  return end + 1 + length;
}

/** A u64 below 2^53 as two u32, without BigInt. */
function writeAddress(into: Buffer, pos: number, value: number): number {
  const high = Math.floor(value / 0x1_0000_0000);
  const low = value - high * 0x1_0000_0000;
  into[pos] = high >>> 24;
  into[pos + 1] = high >>> 16;
  into[pos + 2] = high >>> 8;
  into[pos + 3] = high;
  into[pos + 4] = low >>> 24;
  into[pos + 5] = low >>> 16;
  into[pos + 6] = low >>> 8;
  into[pos + 7] = low;
  return pos + 8;
}
