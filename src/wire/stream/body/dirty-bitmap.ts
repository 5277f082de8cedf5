/**
 * Body of a dirty-bitmap section: chunks up to one with EOS.
 *
 * ```
 * flags: u8, bit 7: one more byte, bit 7 of that: two more
 * [DEVICE_NAME: cstr] [BITMAP_NAME: cstr]
 * START: u32 granularity, u8 flags      BITS: u64 sector, u32 sectors, [unless ZEROES: u64 size, bytes]
 * ```
 * @spec qemu migration/block-dirty-bitmap.c
 */
import type { Reader } from '../../../base/index.ts';
import { hex, overLimit, unexpected } from '../../errors.ts';
import { u64Number } from '../../fields.ts';
import type { BodyScan } from './scan.ts';

const FLAG = {
  EOS: 0x01,
  ZEROES: 0x02,
  BITMAP_NAME: 0x04,
  DEVICE_NAME: 0x08,
  START: 0x10,
  COMPLETE: 0x20,
  BITS: 0x40,
  EXTRA: 0x80,
} as const;
/** QEMU sends at most 1 KiB at a time and takes 10 MiB. */
const BITS_BYTES_MAX = 10 * 1024 * 1024;

export class DirtyBitmapScan implements BodyScan {
  step(reader: Reader): boolean {
    const at = reader.offset;
    const flags = reader.u8();
    if ((flags & FLAG.EXTRA) !== 0) {
      throw unexpected(reader, at, '', 'flags of the chunk', 'one byte, as no other is in use', hex(flags));
    }
    const kinds = flags & (FLAG.START | FLAG.COMPLETE | FLAG.BITS);
    if ((kinds & (kinds - 1)) !== 0 || ((flags & FLAG.ZEROES) !== 0 && kinds !== FLAG.BITS)) {
      throw unexpected(reader, at, '', 'flags of the chunk', 'one of START, COMPLETE, BITS', hex(flags));
    }
    if ((flags & FLAG.DEVICE_NAME) !== 0) reader.cstr();
    if ((flags & FLAG.BITMAP_NAME) !== 0) reader.cstr();
    if (kinds === FLAG.START) reader.skip(5);
    if (kinds === FLAG.BITS) {
      reader.skip(12);
      if ((flags & FLAG.ZEROES) === 0) {
        const sizeAt = reader.offset;
        const size = u64Number(reader, '', 'size of the bits');
        if (size > BITS_BYTES_MAX) throw overLimit(reader, sizeAt, '', 'size of the bits', BITS_BYTES_MAX, size);
        reader.skip(size);
      }
    }
    return (flags & FLAG.EOS) !== 0;
  }
}
