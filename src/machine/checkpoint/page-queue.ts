/**
 * Pages on their way to the file: a ring in shared memory between the thread that receives them and the one that writes them.
 *
 * ```
 *   slot of page n = n % slots            n counts without end, as a signed 32 bit number
 *
 *   | written | ... to be written ... | ... free ... |
 *             ^ WRITTEN               ^ PUBLISHED
 * ```
 * One producer, one consumer, first in first out: of two versions of a page the later one is the later write.
 */

export const Word = {
  /** Pages handed to the writer so far. */
  PUBLISHED: 0,
  /** Pages in the file so far. */
  WRITTEN: 1,
  /** Changes with every order to the writer; it sleeps on this word. */
  SIGNAL: 2,
  /** 1: nothing more comes, end when all is written. 2: end now. */
  STOP: 3,
  /** A message is wanted as soon as this many pages or fewer are left to write; -1: none. */
  WANTED: 4,
  /** Not 0: a write failed with this error number (negative, as libuv has them; 1: none), and nothing is written any more. */
  FAILED: 5,
  COUNT: 6,
} as const;

export const STOP = { WHEN_EMPTY: 1, NOW: 2 } as const;

export interface PageQueue {
  readonly control: Int32Array<SharedArrayBuffer>;
  /** File offset of the page in each slot, bytes. */
  readonly offsets: Float64Array<SharedArrayBuffer>;
  readonly data: Uint8Array<SharedArrayBuffer>;
  readonly pageSize: number;
}

/** What the writing thread is started with. */
export interface PageWriterStart {
  readonly queue: PageQueue;
  /** Open for writing; stays the starter's, which closes it only when the thread has ended. */
  readonly fd: number;
}

/** All it ever says: WANTED is reached; FAILED is set. */
export type FromPageWriter = 'low' | 'failed';

/** `bytes / pageSize` must be a power of two. */
export function newPageQueue(bytes: number, pageSize: number): PageQueue {
  const control = new Int32Array(new SharedArrayBuffer(Word.COUNT * 4));
  control[Word.WANTED] = -1;
  return {
    control,
    offsets: new Float64Array(new SharedArrayBuffer((bytes / pageSize) * 8)),
    data: new Uint8Array(new SharedArrayBuffer(bytes)),
    pageSize,
  };
}
