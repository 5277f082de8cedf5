/** One element of a field, for people and for JSON. */
import { unreachable } from '../base/index.ts';
import type { WalkedLeaf } from '../wire/index.ts';

/** How the bytes of a type read; all others are opaque. */
const READING = {
  bool: 'bool',
  timer: 'timer',
  capability: 'text',
  nullptr: 'pointer',
  'ptr-marker': 'pointer',
  int8: 'signed',
  int16: 'signed',
  int32: 'signed',
  int64: 'signed',
  'int32 equal': 'signed',
  'int32 le': 'signed',
  'int64 equal': 'signed',
  uint8: 'unsigned',
  uint16: 'unsigned',
  uint32: 'unsigned',
  uint64: 'unsigned',
  'uint8 equal': 'unsigned',
  'uint16 equal': 'unsigned',
  'uint32 equal': 'unsigned',
  'uint64 equal': 'unsigned',
} as const;

/** Integers up to 32 bits are numbers, larger ones bigint; timers ns or undefined if not armed; bytes where nothing is known. */
export type FieldValue = number | bigint | boolean | string | Buffer | undefined;

/** A marker of an array of pointers: '0' where there is nothing, '1' in front of an element. */
const POINTER_VALID = 0x31;
const NOT_ARMED = 0xffff_ffff_ffff_ffffn;

export function fieldValue({ type, size }: WalkedLeaf, bytes: Buffer): FieldValue {
  if (!(type in READING) || size === 0) return bytes;
  const reading = READING[type as keyof typeof READING];
  switch (reading) {
    case 'bool':
      return bytes[0] !== 0;
    case 'timer': {
      const ns = unsigned(bytes);
      return ns === NOT_ARMED ? undefined : ns;
    }
    case 'text':
      return bytes.toString('latin1', 1);
    case 'pointer':
      return bytes[0] === POINTER_VALID ? 'valid' : 'null';
    case 'signed':
      return plain(BigInt.asIntN(8 * size, unsigned(bytes)), size);
    case 'unsigned':
      return plain(unsigned(bytes), size);
    default:
      return unreachable(reading);
  }
}

function unsigned(bytes: Buffer): bigint {
  return BigInt(`0x${bytes.toString('hex')}`);
}

function plain(value: bigint, size: number): number | bigint {
  return size <= 4 ? Number(value) : value;
}
