/** The bytes of a file, wherever they are: inspect itself opens nothing. */
export interface ByteSource {
  /** For errors: the file's name. */
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  /** Fills `into` from byte `offset` on; returns how many bytes there were: fewer only at the end of the file. */
  read(offset: number, into: Buffer): Promise<number>;
}

/** The bytes `offset`..`offset + length`, or as many of them as the file has. */
export async function readRange(source: ByteSource, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafeSlow(Math.max(0, Math.min(length, source.size - offset)));
  return bytes.subarray(0, await source.read(offset, bytes));
}
