/**
 * Declared descriptions: one declaration of a device's state gives encoder, decoder, length, VMDESC entry and the TypeScript type
 * of the state. @spec qemu docs/devel/migration/main.rst (VMState, subsections), migration/vmstate.c; qemu-wire 1.2, 4.3.
 *
 *     const uart = vmstate({ name: 'uart', version: 1, fields: { divider: u16, fifo: array(u8, 16), timeout: timer } });
 *     type Uart = StateOf<typeof uart>;
 *
 * body       = field* subsection*
 * subsection = 05 cstr(name) u32(version) body        name = name of the parent "/" ...
 */
import { assert, FerryError, Reader, STARVED, Writer } from '../../base/index.ts';
import { type VmstateFault, vmstateError } from './errors.ts';
import type { Field, Unused } from './field.ts';
import type { VmdescDevice, VmdescField, VmdescStruct } from './vmdesc.ts';

/** QEMU_VM_SUBSECTION */
export const SUBSECTION = 0x05;

// biome-ignore lint/suspicious/noExplicitAny: a bound only; every use infers the element types
type Fields = Readonly<Record<string, Field<any>>>;
// biome-ignore lint/suspicious/noExplicitAny: a bound only; every use infers the element types
type Subsections = Readonly<Record<string, Subsection<any>>>;

type FieldsState<F extends Fields> = {
  -readonly [K in keyof F as F[K] extends Unused ? never : K]: F[K] extends Field<infer T> ? T : never;
};
type SubsectionsState<S extends Subsections> = {
  -readonly [K in keyof S]?: (S[K] extends Subsection<infer T> ? T : never) | undefined;
};

/** A description's state: a property for every field, an optional one for every subsection. */
export type StateOf<D> = D extends Description<infer S> ? S : never;

/** An optional part of the state, under a key of its own: sent if it is there and `needed`; absent when it was not sent. */
export interface Subsection<T> {
  readonly description: Description<T>;
  readonly needed: (state: T) => boolean;
}

export function subsection<T>(description: Description<T>, needed: (state: T) => boolean = () => true): Subsection<T> {
  return { description, needed };
}

/** A field that holds another description's state. */
export function struct<T>(description: Description<T>): Field<T> {
  return {
    fixedSize: description.fixedSize,
    byteLength: (value) => description.byteLength(value),
    encode: (writer, value) => description.encode(writer, value),
    decode: (reader, path) => description.decode(reader, path),
    skip: (reader, path) => description.skip(reader, path),
    entries: (name, value) => [
      { name, type: 'struct', struct: description.vmdesc(value), size: description.byteLength(value) },
    ],
  };
}

export interface Description<S> {
  readonly name: string;
  readonly version: number;
  /** Bytes of every body, or undefined if subsections may come and go. */
  readonly fixedSize: number | undefined;
  byteLength(state: S): number;
  encode(writer: Writer, state: S): void;
  /**
   * Reads one body. Needs one byte of lookahead after the fields if there may be subsections, unless the reader is final.
   * Throws VmstateFault, WIRE_TRUNCATED (if the reader is final) or STARVED.
   */
  decode(reader: Reader, path?: string): S;
  /** As `decode`, without building the state. */
  skip(reader: Reader, path?: string): void;
  vmdesc(state: S): VmdescStruct;
}

export interface Declaration<F extends Fields, S extends Subsections> {
  readonly name: string;
  /** Only this version is accepted: changes go into subsections. */
  readonly version: number;
  /** In wire order. Keys are the names in the VMDESC (an unused field is called `unused` there). */
  readonly fields: F;
  readonly subsections?: S;
}

type Values = Record<string, unknown>;

// biome-ignore lint/complexity/noBannedTypes: the empty set of subsections
export function vmstate<const F extends Fields, const S extends Subsections = {}>(
  declaration: Declaration<F, S>,
): Description<FieldsState<F> & SubsectionsState<S>> {
  const { name, version } = declaration;
  const fields = Object.entries(declaration.fields);
  const subsections = Object.entries(declaration.subsections ?? {}) as [string, Subsection<unknown>][];
  for (const [key] of fields) assert(!/^\d+$/.test(key), `field ${key} of ${name}: numbers as keys lose their order`);
  for (const [key, { description }] of subsections) {
    assert(!(key in declaration.fields), `${name}: ${key} is both field and subsection`);
    assert(description.name.startsWith(name + '/'), `subsection ${description.name} must be called ${name}/...`);
  }
  let fixedSize: number | undefined = subsections.length === 0 ? 0 : undefined;
  for (const [, field] of fields) {
    if (fixedSize !== undefined) fixedSize = field.fixedSize === undefined ? undefined : fixedSize + field.fixedSize;
  }

  /** Those parts of a state that are sent as subsections, in declared order. */
  function* sent(state: Values): Generator<[Description<unknown>, unknown]> {
    for (const [key, { description, needed }] of subsections) {
      const value = state[key];
      if (value !== undefined && needed(value)) yield [description, value];
    }
  }

  /** The fields, then every subsection that follows. */
  function walk(
    reader: Reader,
    path: string,
    onField: (key: string, field: Field<unknown>, path: string) => void,
    onSubsection: (key: string, description: Description<unknown>, path: string) => void,
  ): void {
    for (const [key, field] of fields) {
      located(reader, `${path}.${key}`, (fieldPath) => onField(key, field, fieldPath));
    }
    const seen = new Set<string>();
    while (subsections.length > 0) {
      const found = located(reader, path, () => peekSubsection(reader, name));
      if (found === undefined) break;
      const place = { stream: reader.stream, offset: reader.offset, path };
      const entry = subsections.find(([, { description }]) => description.name === found);
      if (entry === undefined) {
        throw vmstateError({ code: 'VMSTATE_SUBSECTION_UNKNOWN', ...place, found }, `unknown subsection ${found}`);
      }
      if (seen.has(found)) {
        throw vmstateError({ code: 'VMSTATE_SUBSECTION_REPEATED', ...place, found }, `subsection ${found} sent twice`);
      }
      seen.add(found);
      const [key, { description }] = entry;
      located(reader, `${path}/${key}`, (subPath) => {
        reader.skip(1);
        reader.cstr();
        checkVersion(reader, description, reader.u32(), subPath, 4);
        onSubsection(key, description, subPath);
      });
    }
  }

  const description: Description<Values> = {
    name,
    version,
    fixedSize,
    byteLength(state) {
      if (fixedSize !== undefined) return fixedSize;
      let sum = 0;
      for (const [key, field] of fields) sum += field.byteLength(state[key]);
      for (const [sub, value] of sent(state)) sum += 1 + 1 + sub.name.length + 4 + sub.byteLength(value);
      return sum;
    },
    encode(writer, state) {
      for (const [key, field] of fields) field.encode(writer, state[key]);
      for (const [sub, value] of sent(state)) {
        writer.u8(SUBSECTION).cstr(sub.name).u32(sub.version);
        sub.encode(writer, value);
      }
    },
    decode(reader, path = name) {
      const state: Values = {};
      walk(
        reader,
        path,
        (key, field, fieldPath) => {
          const value = field.decode(reader, fieldPath);
          if (!isUnused(field)) state[key] = value;
        },
        (key, sub, subPath) => {
          state[key] = sub.decode(reader, subPath);
        },
      );
      return state;
    },
    skip(reader, path = name) {
      if (fixedSize !== undefined) return located(reader, path, () => reader.skip(fixedSize));
      walk(
        reader,
        path,
        (_, field, fieldPath) => field.skip(reader, fieldPath),
        (_, sub, subPath) => sub.skip(reader, subPath),
      );
    },
    vmdesc(state) {
      const entries: VmdescField[] = [];
      const gaps = fields.filter(([, field]) => isUnused(field)).map(([key]) => key);
      for (const [key, field] of fields) {
        const unusedName = gaps.length > 1 ? `unused[${gaps.indexOf(key)}]` : 'unused';
        entries.push(...field.entries(isUnused(field) ? unusedName : key, state[key]));
      }
      const subs = [...sent(state)].map(([sub, value]) => sub.vmdesc(value));
      return { vmsd_name: name, version, fields: entries, ...(subs.length > 0 && { subsections: subs }) };
    },
  };
  return description as Description<unknown> as Description<FieldsState<F> & SubsectionsState<S>>;
}

function isUnused(field: Field<unknown>): boolean {
  return 'unused' in field;
}

/** Name of the subsection that begins here, if one of `parent` does: `05` and a longer cstr that starts with the parent's name. */
function peekSubsection(reader: Reader, parent: string): string | undefined {
  if (reader.final && reader.available === 0) return undefined;
  if (reader.peekU8() !== SUBSECTION) return undefined;
  const mark = reader.pos;
  try {
    reader.skip(1);
    const found = reader.cstr();
    return found.length > parent.length && found.startsWith(parent) ? found : undefined;
  } finally {
    reader.pos = mark;
  }
}

function checkVersion(
  reader: Reader,
  { version, name }: { readonly version: number; readonly name: string },
  found: number,
  path: string,
  back: number,
): void {
  if (found === version) return;
  const place = { stream: reader.stream, offset: reader.offset - back, path };
  const fault: VmstateFault = { code: 'VMSTATE_VERSION_UNSUPPORTED', ...place, expected: version, found };
  throw vmstateError(fault, `version ${version} of ${name} expected, found ${found}`);
}

/** Gives the bare end-of-bytes error of the reader the path of the innermost field. */
function located<T>(reader: Reader, path: string, read: (path: string) => T): T {
  try {
    return read(path);
  } catch (error) {
    if (!(error instanceof FerryError) || error.code !== 'WIRE_TRUNCATED') throw error;
    const place = { stream: reader.stream, offset: reader.origin + reader.end, path };
    throw vmstateError({ code: 'VMSTATE_TRUNCATED', ...place }, 'the state ends before its description does', error);
  }
}

/** `state` as a section body. */
export function encodeBody<S>(description: Description<S>, state: S): Buffer {
  const writer = new Writer(description.byteLength(state));
  description.encode(writer, state);
  return writer.bytes();
}

/**
 * The state in the section body `body`: version and length must fit exactly. `where` says for errors what the body is (section
 * name) and at which stream offset it begins.
 */
export function decodeBody<S>(
  description: Description<S>,
  version: number,
  body: Buffer,
  where: { readonly stream?: string; readonly offset?: number; readonly path?: string } = {},
): S {
  const path = where.path ?? description.name;
  const reader = new Reader(body, where.stream ?? 'stream', { final: true, origin: where.offset ?? 0 });
  checkVersion(reader, description, version, path, 0);
  const state = description.decode(reader, path);
  if (reader.available > 0) {
    const place = { stream: reader.stream, offset: reader.offset, path };
    const fault: VmstateFault = { code: 'VMSTATE_TRAILING_BYTES', ...place, count: reader.available };
    throw vmstateError(fault, `${reader.available} bytes left over after the state`);
  }
  return state;
}

/**
 * Length in bytes of the body that begins at the start of `bytes`, which may hold more than the body, or undefined if it does
 * not hold all of it (and the byte that follows it, if the description has subsections). Throws VmstateFault.
 */
export function measureBody<S>(
  description: Description<S>,
  bytes: Buffer,
  path = description.name,
): number | undefined {
  const reader = new Reader(bytes, 'stream');
  try {
    description.skip(reader, path);
  } catch (error) {
    if (error === STARVED) return undefined;
    throw error;
  }
  return reader.pos;
}

/** The entry of a device with this state in the VMDESC's `devices`. */
export function vmdescDevice<S>(
  description: Description<S>,
  state: S,
  section: { readonly idstr: string; readonly instance: number },
): VmdescDevice {
  return { name: section.idstr, instance_id: section.instance, ...description.vmdesc(state) };
}
