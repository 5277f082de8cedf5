/**
 * Field types of declared descriptions. Each says once what QEMU's VMSTATE_* macros say: bytes on the wire (big endian), value in
 * memory and entry in the VMDESC. @spec qemu include/migration/vmstate.h, migration/vmstate-types.c; qemu-wire 4.3, 4.4.
 */
import { assert, type Reader, type Writer } from '../../base/index.ts';
import { vmstateError } from './errors.ts';
import type { VmdescField } from './vmdesc.ts';

export interface Field<T> {
  /** Bytes on the wire if all values take the same; undefined if a subsection inside may come and go. */
  readonly fixedSize: number | undefined;
  byteLength(value: T): number;
  encode(writer: Writer, value: T): void;
  /** `path` is for errors. Throws VmstateFault, WIRE_TRUNCATED or STARVED. */
  decode(reader: Reader, path: string): T;
  skip(reader: Reader, path: string): void;
  /** Entries in the VMDESC's `fields`: one, or one an element for arrays whose elements may differ. */
  entries(name: string, value: T): VmdescField[];
}

/** Bytes that carry nothing: no part of the state. */
export interface Unused extends Field<undefined> {
  readonly unused: true;
}

/** A field of the fixed size `size` whose VMDESC type is `type`. */
export function fixed<T>(
  type: string,
  size: number,
  encode: (writer: Writer, value: T) => void,
  decode: (reader: Reader, path: string) => T,
): Field<T> {
  return {
    fixedSize: size,
    byteLength: () => size,
    encode,
    decode,
    skip: (reader) => reader.skip(size),
    entries: (name) => [{ name, type, size }],
  };
}

function integer(type: string, bits: 8 | 16 | 32, signed: boolean): Field<number> {
  const span = 2 ** bits;
  const low = signed ? -span / 2 : 0;
  const put = { 8: 'u8', 16: 'u16', 32: 'u32' } as const;
  const method = put[bits];
  return fixed(
    type,
    bits / 8,
    (writer, value) => {
      assert(Number.isInteger(value) && value >= low && value < low + span, `${value} is not a ${type}`);
      writer[method](value < 0 ? value + span : value);
    },
    (reader) => {
      const raw = reader[method]();
      return signed && raw >= span / 2 ? raw - span : raw;
    },
  );
}

export const u8 = integer('uint8', 8, false);
export const u16 = integer('uint16', 16, false);
export const u32 = integer('uint32', 32, false);
export const i8 = integer('int8', 8, true);
export const i16 = integer('int16', 16, true);
export const i32 = integer('int32', 32, true);

export const u64: Field<bigint> = fixed(
  'uint64',
  8,
  (writer, value) => {
    assert(BigInt.asUintN(64, value) === value, `${value} is not a uint64`);
    writer.u64(value);
  },
  (reader) => reader.u64(),
);

export const i64: Field<bigint> = fixed(
  'int64',
  8,
  (writer, value) => {
    assert(BigInt.asIntN(64, value) === value, `${value} is not an int64`);
    writer.u64(BigInt.asUintN(64, value));
  },
  (reader) => BigInt.asIntN(64, reader.u64()),
);

/** One byte; only 0 and 1 are accepted. */
export const bool: Field<boolean> = fixed(
  'bool',
  1,
  (writer, value) => {
    writer.u8(value ? 1 : 0);
  },
  (reader, path) => {
    const offset = reader.offset;
    const byte = reader.u8();
    if (byte > 1) {
      const place = { stream: reader.stream, offset, path };
      const fault = { code: 'VMSTATE_UNEXPECTED_VALUE', ...place, expected: '0 or 1', found: String(byte) } as const;
      throw vmstateError(fault, `0 or 1 expected, found ${byte}`);
    }
    return byte === 1;
  },
);

const TIMER_NOT_ARMED = 0xffff_ffff_ffff_ffffn;

/** Expiry of a timer, ns of its clock; undefined = not armed (all ones on the wire). */
export const timer: Field<bigint | undefined> = fixed(
  'timer',
  8,
  (writer, value) => {
    assert(value === undefined || (value >= 0n && value < TIMER_NOT_ARMED), `${value} is not an expiry time`);
    writer.u64(value ?? TIMER_NOT_ARMED);
  },
  (reader) => {
    const value = reader.u64();
    return value === TIMER_NOT_ARMED ? undefined : value;
  },
);

/** Exactly `size` bytes; decoded into memory of its own. */
export function buffer(size: number): Field<Uint8Array> {
  return fixed(
    'buffer',
    size,
    (writer, value) => {
      assert(value.length === size, `buffer of ${value.length} bytes where ${size} belong`);
      writer.raw(value);
    },
    (reader) => new Uint8Array(reader.view(size)),
  );
}

/** Latin1 text of at most `size - 1` characters, NUL terminated; what follows the NUL is ignored, and written as zeros. */
export function text(size: number): Field<string> {
  return fixed(
    'buffer',
    size,
    (writer, value) => {
      const bytes = Buffer.from(value, 'latin1');
      assert(
        bytes.length < size && !bytes.includes(0),
        `text ${JSON.stringify(value)} does not fit into ${size} bytes`,
      );
      writer.raw(bytes).zeros(size - bytes.length);
    },
    (reader, path) => {
      const offset = reader.offset;
      const bytes = reader.view(size);
      const length = bytes.indexOf(0);
      if (length < 0) {
        const place = { stream: reader.stream, offset, path };
        const fault = { code: 'VMSTATE_UNEXPECTED_VALUE', ...place, expected: 'NUL', found: 'none' } as const;
        throw vmstateError(fault, `text without NUL in ${size} bytes`);
      }
      return bytes.toString('latin1', 0, length);
    },
  );
}

/** `size` bytes that are written as zeros and not looked at. `type`: what the VMDESC calls them. */
export function unused(size: number, type: 'unused_buffer' | 'buffer' = 'unused_buffer'): Unused {
  const field = fixed<undefined>(
    type,
    size,
    (writer) => {
      writer.zeros(size);
    },
    (reader) => {
      reader.skip(size);
      return undefined;
    },
  );
  return { ...field, unused: true };
}

/** `count` elements one after another. */
export function array<T>(element: Field<T>, count: number): Field<T[]> {
  const elementSize = element.fixedSize;
  return {
    fixedSize: elementSize === undefined ? undefined : elementSize * count,
    byteLength: (values) =>
      elementSize === undefined
        ? values.reduce((sum, value) => sum + element.byteLength(value), 0)
        : elementSize * count,
    encode(writer, values) {
      assert(values.length === count, `${values.length} elements where ${count} belong`);
      for (const value of values) element.encode(writer, value);
    },
    decode: (reader, path) => Array.from({ length: count }, (_, i) => element.decode(reader, `${path}[${i}]`)),
    skip(reader, path) {
      if (elementSize !== undefined) reader.skip(elementSize * count);
      else for (let i = 0; i < count; i++) element.skip(reader, `${path}[${i}]`);
    },
    entries(name, values) {
      const [first] = values;
      if (first === undefined) return [];
      const one = element.entries(name, first);
      if (count === 1) return one;
      // QEMU describes elements that cannot differ once, others one by one.
      if (elementSize !== undefined) return one.map(({ name, ...rest }) => ({ name, array_len: count, ...rest }));
      return values.flatMap((value, index) =>
        element.entries(name, value).map(({ name, ...rest }) => ({ name, index, ...rest })),
      );
    },
  };
}
