/**
 * VMDESC: the stream's description of itself, a JSON text after EOF. Types, parser (the text comes from the peer) and builder.
 * @spec qemu migration/vmstate.c, migration/savevm.c; qemu-wire 4.3.
 */
import { FerryError } from '../../base/index.ts';
import { DESCRIPTION_BYTES_MAX } from '../limits.ts';
import type { Configuration } from '../stream/events.ts';

/** Keys are QEMU's, in QEMU's order. */
export interface VmdescField {
  /** May repeat: equal names are one array. */
  readonly name: string;
  /** Elements of the same shape that follow one another; absent = 1. */
  readonly array_len?: number;
  /** Informational; differs between versions. */
  readonly index?: number;
  readonly type: string;
  readonly struct?: VmdescStruct;
  /** Bytes of one element; for a struct with all that is nested in it. */
  readonly size: number;
}

export interface VmdescStruct {
  readonly vmsd_name: string;
  readonly version: number;
  readonly fields: readonly VmdescField[];
  readonly subsections?: readonly VmdescStruct[];
}

/** One section. Old style devices (no vmstate) have neither `vmsd_name` nor `version`. */
export interface VmdescDevice extends Omit<VmdescStruct, 'vmsd_name' | 'version'> {
  readonly name: string;
  readonly instance_id: number;
  readonly vmsd_name?: string;
  readonly version?: number;
}

export interface Vmdesc {
  /** Since 8.2. */
  readonly configuration?: VmdescStruct;
  /** Target page size, bytes. */
  readonly page_size: number;
  /** In stream order: early setup devices, then FULL sections. */
  readonly devices: readonly VmdescDevice[];
}

export type VmdescFault =
  | { readonly code: 'VMDESC_TOO_LARGE'; readonly length: number; readonly limit: number }
  | { readonly code: 'VMDESC_NOT_JSON' }
  /** `path` is the place in the JSON, as `devices[3].fields[0].size`. */
  | { readonly code: 'VMDESC_UNEXPECTED_VALUE'; readonly path: string; readonly expected: string }
  /** The bytes at `offset` of the stream are not what the description says; `path` as `section apic / irr`. */
  | {
      readonly code: 'VMDESC_MISMATCH';
      readonly stream: string;
      readonly offset: number;
      readonly path: string;
      readonly expected: string;
      readonly found: string;
    }
  | {
      readonly code: 'VMDESC_DEVICE_MISSING';
      readonly stream: string;
      readonly offset: number;
      readonly idstr: string;
      readonly instance: number;
    };

/** Structs in structs; QEMU's deepest is 6. */
export const VMDESC_DEPTH_MAX = 32;

type Check<T> = (value: unknown, path: string, depth: number) => T;

function bad(path: string, expected: string): never {
  const fault: VmdescFault = { code: 'VMDESC_UNEXPECTED_VALUE', path, expected };
  throw new FerryError(fault, `VMDESC: ${expected} expected at ${path === '' ? 'the top' : path}`);
}

const aText: Check<string> = (value, path) => (typeof value === 'string' ? value : bad(path, 'text'));

const aCount: Check<number> = (value, path) =>
  typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= 0xffff_ffff
    ? value
    : bad(path, 'an integer from 0 to 4294967295');

function listOf<T>(element: Check<T>): Check<T[]> {
  return (value, path, depth) => {
    if (!Array.isArray(value)) bad(path, 'a list');
    return value.map((one: unknown, i) => element(one, `${path}[${i}]`, depth));
  };
}

function anObject(value: unknown, path: string, depth: number): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) bad(path, 'an object');
  if (depth > VMDESC_DEPTH_MAX) bad(path, `nesting of at most ${VMDESC_DEPTH_MAX} levels`);
  return value as Record<string, unknown>;
}

/** `{key: checked value}` if the key is there, else nothing: keeps optional properties absent. */
function optional<K extends string, T>(
  from: Record<string, unknown>,
  key: K,
  check: Check<T>,
  path: string,
  depth: number,
): { [P in K]?: T } {
  if (!Object.hasOwn(from, key)) return {};
  return { [key]: check(from[key], path === '' ? key : `${path}.${key}`, depth) } as { [P in K]?: T };
}

const aField: Check<VmdescField> = (value, path, depth) => {
  const from = anObject(value, path, depth);
  const type = aText(from['type'], `${path}.type`, depth);
  return {
    name: aText(from['name'], `${path}.name`, depth),
    ...optional(from, 'array_len', aCount, path, depth),
    ...optional(from, 'index', aCount, path, depth),
    type,
    // Only a struct's own: types such as "tmp" have a description beside them, but are skipped by size.
    ...(type === 'struct' && { struct: aStruct(from['struct'], `${path}.struct`, depth + 1) }),
    size: aCount(from['size'], `${path}.size`, depth),
  };
};

const aStruct: Check<VmdescStruct> = (value, path, depth) => {
  const from = anObject(value, path, depth);
  return {
    vmsd_name: aText(from['vmsd_name'], `${path}.vmsd_name`, depth),
    version: aCount(from['version'], `${path}.version`, depth),
    fields: listOf(aField)(from['fields'], `${path}.fields`, depth),
    ...optional(from, 'subsections', listOf(aSubsection), path, depth),
  };
};

const aSubsection: Check<VmdescStruct> = (value, path, depth) => aStruct(value, path, depth + 1);

const aDevice: Check<VmdescDevice> = (value, path, depth) => {
  const from = anObject(value, path, depth);
  return {
    name: aText(from['name'], `${path}.name`, depth),
    instance_id: aCount(from['instance_id'], `${path}.instance_id`, depth),
    ...optional(from, 'vmsd_name', aText, path, depth),
    ...optional(from, 'version', aCount, path, depth),
    fields: listOf(aField)(from['fields'], `${path}.fields`, depth),
    ...optional(from, 'subsections', listOf(aSubsection), path, depth),
  };
};

/** The description in `text`; keys it does not know are dropped. Throws VmdescFault. */
export function parseVmdesc(text: string): Vmdesc {
  if (text.length > DESCRIPTION_BYTES_MAX) {
    const fault: VmdescFault = { code: 'VMDESC_TOO_LARGE', length: text.length, limit: DESCRIPTION_BYTES_MAX };
    throw new FerryError(fault, `VMDESC: ${text.length} characters, more than ${DESCRIPTION_BYTES_MAX}`);
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new FerryError<VmdescFault>({ code: 'VMDESC_NOT_JSON' }, 'VMDESC: not JSON', error);
  }
  const from = anObject(json, '', 0);
  return {
    ...optional(from, 'configuration', aStruct, '', 0),
    page_size: aCount(from['page_size'], 'page_size', 0),
    devices: listOf(aDevice)(from['devices'], 'devices', 0),
  };
}

/** The description of a whole stream, as QEMU >= 8.2 words it. */
export function vmdescText(
  configuration: Configuration,
  targetPageSize: number,
  devices: readonly VmdescDevice[],
): string {
  const vmdesc: Vmdesc = { configuration: vmdescConfiguration(configuration), page_size: targetPageSize, devices };
  return JSON.stringify(vmdesc);
}

/** @spec qemu migration/savevm.c (vmstate_configuration) */
function vmdescConfiguration({ machineType, targetPageBits, capabilities, uuid }: Configuration): VmdescStruct {
  const subsections: VmdescStruct[] = [];
  const add = (name: string, fields: VmdescField[]) =>
    subsections.push({ vmsd_name: `configuration/${name}`, version: 1, fields });
  if (targetPageBits !== undefined) add('target-page-bits', [{ name: 'target_page_bits', type: 'uint32', size: 4 }]);
  const [firstCapability] = capabilities ?? [];
  if (capabilities !== undefined && firstCapability !== undefined) {
    add('capabilities', [
      { name: 'caps_count', type: 'uint32', size: 4 },
      // QEMU takes the first for all of them; a capability is read by its own length.
      {
        name: 'capabilities',
        ...(capabilities.length > 1 && { array_len: capabilities.length }),
        type: 'capability',
        size: 1 + firstCapability.length,
      },
    ]);
  }
  if (uuid !== undefined) add('uuid', [{ name: 'uuid.data', array_len: 16, type: 'uint8', size: 1 }]);
  return {
    vmsd_name: 'configuration',
    version: 1,
    fields: [
      { name: 'len', type: 'uint32', size: 4 },
      { name: 'name', type: 'buffer', size: machineType.length },
    ],
    ...(subsections.length > 0 && { subsections }),
  };
}
