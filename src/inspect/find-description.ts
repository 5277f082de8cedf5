import { type ByteSource, readRange } from './source.ts';

/** Bytes at the end of the file that are searched. */
const TAIL = 16 * 1024 * 1024;
const EOF_AND_VMDESCRIPTION = Buffer.from([0x00, 0x06]);
const BRACE = '{'.charCodeAt(0);

/** The description of a stream that cannot be read up to it: EOF byte, type byte and a length that ends with the file. */
export async function findDescription(
  source: ByteSource,
): Promise<{ readonly offset: number; readonly text: string } | undefined> {
  const start = Math.max(0, source.size - TAIL);
  const tail = await readRange(source, start, TAIL);
  for (let at = tail.indexOf(EOF_AND_VMDESCRIPTION); at >= 0; at = tail.indexOf(EOF_AND_VMDESCRIPTION, at + 1)) {
    const text = at + 6;
    if (tail[text] !== BRACE || tail.readUInt32BE(at + 2) !== tail.length - text) continue;
    return { offset: start + at + 1, text: tail.toString('latin1', text) };
  }
  return undefined;
}
