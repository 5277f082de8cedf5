/** See decode.ts for the format. @spec qemu migration/xbzrle.c xbzrle_encode_buffer */

/** Largest page that can be encoded: run lengths have 14 bits. */
export const XBZRLE_PAGE_BYTES_MAX = 0x3fff;
/** Equal bytes between two changes that are sent along: a new pair of lengths costs as much. */
const GAP_MAX = 2;

/**
 * Encodes what changed from `old[oldAt ..)` to `now[nowAt ..)` into `into[pos .. limit)`. Returns the length of the body, 0 if the pages
 * are equal (nothing is to be sent), -1 if it does not fit before `limit`. `now` must not change meanwhile. Pages at addresses
 * that are multiples of 4 are compared word by word, others byte by byte.
 */
export function xbzrleEncode(
  old: Buffer,
  oldAt: number,
  now: Buffer,
  nowAt: number,
  pageSize: number,
  into: Buffer,
  pos: number,
  limit: number,
): number {
  const start = pos;
  const oldWords = wordsOf(old, oldAt, pageSize);
  const nowWords = wordsOf(now, nowAt, pageSize);
  let done = 0;
  while (done < pageSize) {
    let from = done;
    if (oldWords !== undefined && nowWords !== undefined) {
      while ((from & 3) !== 0 && old[oldAt + from] === now[nowAt + from]) from++;
      if ((from & 3) === 0) {
        let word = from >>> 2;
        while (word < oldWords.length && oldWords[word] === nowWords[word]) word++;
        from = word << 2;
      }
    }
    while (from < pageSize && old[oldAt + from] === now[nowAt + from]) from++;
    if (from >= pageSize) break;

    // [from, to) is to be sent: it ends where more than GAP_MAX equal bytes follow.
    let to = from + 1;
    for (let equal = 0, at = to; at < pageSize && equal <= GAP_MAX; at++) {
      if (old[oldAt + at] === now[nowAt + at]) equal++;
      else {
        equal = 0;
        to = at + 1;
      }
    }
    if (pos + 4 + (to - from) > limit) return -1;
    pos = writeLength(into, pos, from - done);
    pos = writeLength(into, pos, to - from);
    if (to - from < COPY_LOOP_MAX) for (let at = from; at < to; at++) into[pos++] = now[nowAt + at]!;
    else pos += now.copy(into, pos, nowAt + from, nowAt + to);
    done = to;
  }
  return pos - start;
}

const COPY_LOOP_MAX = 48;

function wordsOf(bytes: Buffer, at: number, length: number): Int32Array | undefined {
  const address = bytes.byteOffset + at;
  return ((address | length) & 3) === 0 ? new Int32Array(bytes.buffer, address, length >>> 2) : undefined;
}

function writeLength(into: Buffer, pos: number, length: number): number {
  if (length < 0x80) {
    into[pos] = length;
    return pos + 1;
  }
  into[pos] = (length & 0x7f) | 0x80;
  into[pos + 1] = length >>> 7;
  return pos + 2;
}
