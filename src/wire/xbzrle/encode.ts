/** See decode.ts for the format. @spec qemu migration/xbzrle.c xbzrle_encode_buffer */

/** Equal bytes between two changes that are sent along: a new pair of lengths costs as much. */
const GAP_MAX = 2;
/** Up to this many bytes a loop is faster than the call. */
const COPY_LOOP_MAX = 48;

/**
 * Encodes what changed from `old[oldAt ..)` to `now[nowAt ..)` into `into[pos .. limit)`. Returns the length of the body, 0 if the pages
 * are equal (nothing is to be sent), -1 if it does not fit before `limit`. `now` must not change meanwhile. `oldAt`, `nowAt` and the
 * buffers' own offsets in memory are multiples of 4 (as in any buffer of whole pages). Use few, long-lived buffers.
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
  const oldWords = wordsOf(old);
  const nowWords = wordsOf(now);
  const oldWord = oldAt >>> 2;
  const nowWord = nowAt >>> 2;
  const words = pageSize >>> 2;
  const start = pos;
  let done = 0;
  for (;;) {
    // Up to the next word boundary there may be equal bytes behind the last change.
    let from = done;
    while ((from & 3) !== 0 && old[oldAt + from] === now[nowAt + from]) from++;
    if ((from & 3) === 0) {
      from = 4 * firstDifference(oldWords, oldWord, nowWords, nowWord, from >>> 2, words);
      if (from === pageSize) return pos - start;
      while (old[oldAt + from] === now[nowAt + from]) from++;
    }

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
    if (to - from <= COPY_LOOP_MAX) for (let at = from; at < to; at++) into[pos++] = now[nowAt + at]!;
    else pos += now.copy(into, pos, nowAt + from, nowAt + to);
    done = to;
  }
}

/** Index of the first word that differs, from word `at` on; `end` if none does. */
function firstDifference(
  a: Int32Array,
  aStart: number,
  b: Int32Array,
  bStart: number,
  at: number,
  end: number,
): number {
  while (at < end && a[aStart + at] === b[bStart + at]) at++;
  return at;
}

/** One view per buffer, made once: pages come from few buffers, and views are dear beside comparing a page. */
const views = new WeakMap<Buffer, Int32Array>();

function wordsOf(bytes: Buffer): Int32Array {
  let words = views.get(bytes);
  if (words === undefined) {
    words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >>> 2);
    views.set(bytes, words);
  }
  return words;
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
