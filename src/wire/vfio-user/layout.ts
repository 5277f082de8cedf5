/**
 * How bodies of messages are declared: `struct` takes fields in the order of the wire and gives what reads and writes them. Only the last
 * field may vary in size. Bytes behind the last field are not looked at: replies are padded by some, requests may be longer than needed.
 */
import { assert } from '../../base/index.ts';
import { overLimit } from '../errors.ts';
import type { Payload } from './payload.ts';

export interface Field<T> {
  /** Bytes that it takes at least; exactly, unless `varies`. */
  readonly bytes: number;
  readonly varies?: true;
  /** Has no value of its own. */
  readonly hidden?: true;
  sizeOf(value: T): number;
  /** Throws WireError. */
  read(payload: Payload, name: string): T;
  /** `payloadBytes`: of the whole message. */
  write(into: Buffer, at: number, value: T, payloadBytes: number): void;
}

type Fields = Readonly<Record<string, Field<unknown>>>;
type ValueOf<F> = F extends Field<infer T> ? T : never;
type Shown<F extends Fields> = { [K in keyof F]: F[K] extends { readonly hidden: true } ? never : K }[keyof F];
export type Values<F extends Fields> = { readonly [K in Shown<F>]: ValueOf<F[K]> };

export function struct<const F extends Fields>(fields: F): Field<Values<F>> {
  const entries = Object.entries(fields) as [string, Field<unknown>][];
  const bytes = entries.reduce((sum, [, field]) => sum + field.bytes, 0);
  assert(
    entries.slice(0, -1).every(([, field]) => field.varies === undefined),
    'only the last field varies in size',
  );
  const last = entries.at(-1);
  const varying = last?.[1].varies === undefined ? undefined : last;
  return {
    bytes,
    ...(varying === undefined ? {} : { varies: true as const }),
    sizeOf(value) {
      if (varying === undefined) return bytes;
      const [name, field] = varying;
      return bytes - field.bytes + field.sizeOf((value as Record<string, unknown>)[name]);
    },
    read(payload) {
      const value: Record<string, unknown> = {};
      for (const [name, field] of entries) {
        const read = field.read(payload, name);
        if (field.hidden === undefined) value[name] = read;
      }
      return value as Values<F>;
    },
    write(into, at, value, payloadBytes) {
      let next = at;
      for (const [name, field] of entries) {
        const own = (value as Record<string, unknown>)[name];
        field.write(into, next, own, payloadBytes);
        next += field.sizeOf(own);
      }
    },
  };
}

function fixed<T>(
  bytes: number,
  read: (from: Buffer, at: number) => T,
  write: (into: Buffer, at: number, value: T) => void,
): Field<T> {
  return {
    bytes,
    sizeOf: () => bytes,
    read: (payload, name) => read(payload.bytes, payload.take(bytes, name)),
    write,
  };
}

export const u16 = fixed<number>(
  2,
  (from, at) => from.readUInt16LE(at),
  (into, at, value) => into.writeUInt16LE(value, at),
);
export const u32 = fixed<number>(
  4,
  (from, at) => from.readUInt32LE(at),
  (into, at, value) => into.writeUInt32LE(value, at),
);
export const i32 = fixed<number>(
  4,
  (from, at) => from.readInt32LE(at),
  (into, at, value) => into.writeInt32LE(value, at),
);

/** A u64 that must be below 2^53: addresses, sizes, counts. */
export const u64: Field<number> = {
  bytes: 8,
  sizeOf: () => 8,
  read(payload, name) {
    const at = payload.take(8, name);
    const high = payload.bytes.readUInt32LE(at + 4);
    if (high > 0x1fffff) throw payload.wrong(at, name, 'a value below 2^53', payload.bytes.readBigUInt64LE(at));
    return high * 0x1_0000_0000 + payload.bytes.readUInt32LE(at);
  },
  write(into, at, value) {
    into.writeUInt32LE(value % 0x1_0000_0000, at);
    into.writeUInt32LE(Math.floor(value / 0x1_0000_0000), at + 4);
  },
};

/** Bytes of a fixed number, as a view. */
export function raw(bytes: number): Field<Buffer> {
  return {
    bytes,
    sizeOf: () => bytes,
    read: (payload, name) => payload.view(bytes, name),
    write: (into, at, value) => void into.set(value, at),
  };
}

/** Written as zeros, not looked at. */
export function reserved(bytes: number): Field<void> & { readonly hidden: true } {
  return {
    bytes,
    hidden: true,
    sizeOf: () => bytes,
    read: (payload, name) => void payload.take(bytes, name),
    write: (into, at) => void into.fill(0, at, at + bytes),
  };
}

/** `argsz` where it says nothing but the size of the payload that it is in; `least`: bytes of it that have to be there. */
export function ownArgsz(least: number): Field<void> & { readonly hidden: true } {
  return {
    bytes: 4,
    hidden: true,
    sizeOf: () => 4,
    read(payload, name) {
      const at = payload.take(4, name);
      const found = payload.bytes.readUInt32LE(at);
      if (found < least) throw payload.wrong(at, name, `at least ${least}`, found);
    },
    write: (into, at, _value, payloadBytes) => void into.writeUInt32LE(payloadBytes, at),
  };
}

/** A count and that many bytes, as a view. */
export function counted(count: Field<number>): Field<Buffer> & { readonly varies: true } {
  return {
    bytes: count.bytes,
    varies: true,
    sizeOf: (value) => count.bytes + value.length,
    read: (payload, name) => payload.view(count.read(payload, `count of ${name}`), name),
    write(into, at, value, payloadBytes) {
      count.write(into, at, value.length, payloadBytes);
      into.set(value, at + count.bytes);
    },
  };
}

/** All bytes up to the end of the payload, as a view. */
export const rest: Field<Buffer> & { readonly varies: true } = {
  bytes: 0,
  varies: true,
  sizeOf: (value) => value.length,
  read: (payload, name) => payload.view(payload.rest, name),
  write: (into, at, value) => void into.set(value, at),
};

/** A count, `gap` zero bytes and that many elements of fixed size, at most `most`. */
export function list<T>(
  count: Field<number>,
  element: Field<T>,
  most: number,
  gap = 0,
): Field<readonly T[]> & { readonly varies: true } {
  const head = count.bytes + gap;
  return {
    bytes: head,
    varies: true,
    sizeOf: (value) => head + value.length * element.bytes,
    read(payload, name) {
      const countAt = payload.pos;
      const length = count.read(payload, `count of ${name}`);
      if (length > most) {
        throw overLimit(payload, payload.origin + countAt, payload.path, `count of ${name}`, most, length);
      }
      payload.take(gap, name);
      if (length * element.bytes > payload.rest) {
        const found = `${payload.rest} bytes`;
        throw payload.wrong(countAt, name, `${length * element.bytes} bytes of ${length} elements`, found);
      }
      return Array.from({ length }, () => element.read(payload, name));
    },
    write(into, at, value, payloadBytes) {
      count.write(into, at, value.length, payloadBytes);
      into.fill(0, at + count.bytes, at + head);
      for (const [index, one] of value.entries()) {
        element.write(into, at + head + index * element.bytes, one, payloadBytes);
      }
    },
  };
}

/** There, or the payload ends before it. */
export function optional<T>(field: Field<T>): Field<T | undefined> & { readonly varies: true } {
  return {
    bytes: 0,
    varies: true,
    sizeOf: (value) => (value === undefined ? 0 : field.sizeOf(value)),
    read: (payload, name) => (payload.rest === 0 ? undefined : field.read(payload, name)),
    write(into, at, value, payloadBytes) {
      if (value !== undefined) field.write(into, at, value, payloadBytes);
    },
  };
}

/** No payload at all. */
export const nothing: Field<Record<never, never>> = struct({});

/** The payload that `body` makes of `value`, into `into` at `at`: room for `body.sizeOf(value)` bytes must be there. */
export function writeBody<T>(body: Field<T>, into: Buffer, at: number, value: T): void {
  body.write(into, at, value, body.sizeOf(value));
}
