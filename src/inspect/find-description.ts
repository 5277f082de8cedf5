import { type ByteSource, readRange } from './source.ts';

/** Bytes at the end of the file that are searched. */
const TAIL = 16 * 1024 * 1024;
/** EOF byte, type byte, u32 length. */
const PREFIX_BYTES = 6;
const OPENING = Buffer.from('{"');

/** The description of a stream that cannot be read up to it: behind an EOF byte, with a length that ends with the file. */
export async function findDescription(
  source: ByteSource,
): Promise<{ readonly offset: number; readonly text: string } | undefined> {
  const start = Math.max(0, source.size - TAIL);
  const tail = await readRange(source, start, TAIL);
  for (let at = tail.indexOf(OPENING, PREFIX_BYTES); at >= 0; at = tail.indexOf(OPENING, at + 1)) {
    const begins = tail[at - 6] === 0x00 && tail[at - 5] === 0x06 && tail.readUInt32BE(at - 4) === tail.length - at;
    if (begins) return { offset: start + at - 5, text: tail.toString('latin1', at) };
  }
  return undefined;
}
