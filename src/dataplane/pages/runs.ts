/** How many pages from `first` on, below `end`, are neighbours: offsets in bytes, each a page behind the one before. */
export function runLength(offsets: Float64Array, first: number, end: number, pageSize: number): number {
  let next = first + 1;
  while (next < end && offsets[next] === offsets[next - 1]! + pageSize) next++;
  return next - first;
}
