/** A page of one of several blocks as one number, for sets and queues. Blocks below 2^20, pages below 2^33: exact. */
const BLOCK = 2 ** 33;

export function pageKey(block: number, page: number): number {
  return block * BLOCK + page;
}

export function blockOfKey(key: number): number {
  return Math.floor(key / BLOCK);
}

export function pageOfKey(key: number): number {
  return key % BLOCK;
}
