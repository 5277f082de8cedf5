/** A look at three bytes of the page at `at`: it spares most pages with content the comparison, which costs as much as a copy. */
export function mayBeZeroPage(bytes: Buffer, at: number, pageSize: number): boolean {
  // One after the other: each look at a page that nobody has read lately waits for memory.
  return bytes[at] === 0 && bytes[at + pageSize / 2 + 8] === 0 && bytes[at + pageSize - 1] === 0;
}

/** Whether the page at `at` is as `zeroPage`, which is one page long. */
export function isZeroPage(bytes: Buffer, at: number, zeroPage: Buffer): boolean {
  const { length } = zeroPage;
  return mayBeZeroPage(bytes, at, length) && bytes.compare(zeroPage, 0, length, at, at + length) === 0;
}
