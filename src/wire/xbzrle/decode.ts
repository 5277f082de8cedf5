/**
 * Body of an XBZRLE record: pairs that turn the old page into the new one.
 *
 * ```
 * (zrun length, nzrun length, nzrun bytes)*      skip zrun bytes, overwrite nzrun bytes; what is left keeps its old content
 * ```
 * A length is uleb128 of one or two bytes. A zrun of 0 is legal only at the start, an nzrun of 0 never.
 * @spec qemu migration/xbzrle.c xbzrle_decode_buffer
 */

/**
 * Applies `from[at .. at + length)` to the page in `page[0 .. pageSize)`. Returns undefined, or what is wrong with the body (the page
 * is then changed in part). No allocation.
 */
export function xbzrleDecode(
  from: Buffer,
  at: number,
  length: number,
  page: Buffer,
  pageSize: number,
): string | undefined {
  const end = at + length;
  let pos = at;
  let place = 0;
  while (pos < end) {
    let run = from[pos++]!;
    if (run >= 0x80) {
      if (pos === end || from[pos]! >= 0x80) return 'a run length longer than two bytes';
      run = (run & 0x7f) | (from[pos++]! << 7);
    }
    if (run === 0 && place !== 0) return 'an empty run between changes';
    place += run;
    if (pos === end) return 'a run without changes at the end';

    run = from[pos++]!;
    if (run >= 0x80) {
      if (pos === end || from[pos]! >= 0x80) return 'a run length longer than two bytes';
      run = (run & 0x7f) | (from[pos++]! << 7);
    }
    if (run === 0) return 'an empty change';
    if (place + run > pageSize) return 'changes past the end of the page';
    if (pos + run > end) return 'changes past the end of the body';
    if (run < COPY_LOOP_MAX) for (let i = 0; i < run; i++) page[place + i] = from[pos + i]!;
    else from.copy(page, place, pos, pos + run);
    place += run;
    pos += run;
  }
  return undefined;
}

/** Up to this many bytes a loop is faster than the call. */
const COPY_LOOP_MAX = 48;
