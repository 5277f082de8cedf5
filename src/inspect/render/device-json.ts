/** A device down to its fields, for programs: plain JSON values. */
import type { WalkedBody, WalkedField } from '../../wire/index.ts';
import type { InspectedDevice } from '../inspection.ts';
import { fieldValue } from '../value.ts';

/** 64-bit integers as decimal text, bytes as hex, a timer that is not armed as null; offsets from the start of the body. */
type JsonValue = number | string | boolean | null;

export interface JsonField {
  readonly name: string;
  readonly type: string;
  readonly offset: number;
  readonly size: number;
  readonly value?: JsonValue;
  /** Of an array. */
  readonly values?: readonly JsonValue[];
  readonly struct?: JsonBody;
}

export interface JsonBody {
  readonly vmsdName: string | undefined;
  readonly version: number | undefined;
  readonly fields: readonly JsonField[];
  readonly subsections?: readonly JsonBody[];
}

export interface JsonDevice {
  readonly idstr: string;
  readonly instance: number;
  readonly version: number;
  readonly bodyOffset: number;
  readonly bodyBytes: number;
  /** Absent if the section is not described: then `bytes` is its body in hex. */
  readonly state?: JsonBody;
  readonly bytes?: string;
}

export function deviceJson({ section, body, fields }: InspectedDevice): JsonDevice {
  const { idstr, instance, version, bodyOffset = 0 } = section;
  const common = { idstr, instance, version, bodyOffset, bodyBytes: body.length };
  return fields === undefined
    ? { ...common, bytes: body.toString('hex') }
    : { ...common, state: bodyJson(fields, body) };
}

function bodyJson(from: WalkedBody, body: Buffer): JsonBody {
  const subsections = from.subsections.map((sub) => bodyJson(sub, body));
  return {
    vmsdName: from.vmsdName,
    version: from.version,
    fields: from.fields.map((field) => fieldJson(field, body)),
    ...(subsections.length > 0 && { subsections }),
  };
}

function fieldJson(field: WalkedField, body: Buffer): JsonField {
  const { name, offset, size } = field;
  if (field.kind === 'struct') return { name, type: 'struct', offset, size, struct: bodyJson(field.body, body) };
  const { type, count } = field;
  const values = Array.from({ length: count }, (_, i): JsonValue => {
    const value = fieldValue(field, body.subarray(offset + i * size, offset + (i + 1) * size));
    if (value === undefined) return null;
    if (typeof value === 'bigint') return String(value);
    return typeof value === 'object' ? value.toString('hex') : value;
  });
  return { name, type, offset, size, ...(count === 1 ? { value: values[0]! } : { values }) };
}
