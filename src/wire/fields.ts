/** Field readers with the checks every codec needs; `path` says for errors what is being read. */
import type { Reader } from '../base/index.ts';
import { unexpected } from './errors.ts';

/** A u64 that must fit a number (below 2^53): lengths, offsets, addresses. */
export function u64Number(reader: Reader, path: string, field: string): number {
  reader.need(8);
  const high = reader.bytes.readUInt32BE(reader.pos);
  if (high > 0x1fffff) {
    throw unexpected(
      reader,
      reader.offset,
      path,
      field,
      'a value below 2^53',
      reader.bytes.readBigUInt64BE(reader.pos),
    );
  }
  const value = high * 0x1_0000_0000 + reader.bytes.readUInt32BE(reader.pos + 4);
  reader.pos += 8;
  return value;
}

/** A u8-counted name: not empty, printable ASCII (idstr, block, node and bitmap names), so that it can stand in messages. */
export function nameField(reader: Reader, path: string, field: string): string {
  const at = reader.offset;
  const name = reader.cstr();
  if (!isPrintable(name)) throw unexpected(reader, at, path, field, 'a printable name', JSON.stringify(name));
  return name;
}

export function isPrintable(text: string): boolean {
  return /^[\x20-\x7e]+$/.test(text);
}

/** A u8 or u32 that has one legal value. */
export function expectValue(
  reader: Reader,
  at: number,
  path: string,
  field: string,
  legal: number,
  found: number,
): void {
  if (found !== legal) throw unexpected(reader, at, path, field, String(legal), found);
}
