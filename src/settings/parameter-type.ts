/** What a parameter is: its declaration, what its values must be, and whether a value is one. */
import type { Ends } from './capabilities.ts';

/** 2^64: it stands for the largest unsigned 64-bit number, which a JavaScript number cannot hold. */
export const UINT64 = 2 ** 64;

export type ParameterType =
  /** A whole number; `max` of the QAPI type where QEMU has no narrower one. */
  | { readonly kind: 'int'; readonly min: number; readonly max: number; readonly unit?: 'ms' | '%' | 'MB/s' }
  /** A number of bytes (or bytes per second), 0..2^64-1. */
  | {
      readonly kind: 'size';
      readonly unit: 'bytes' | 'bytes/s';
      readonly powerOfTwoFrom?: number;
      readonly max?: number;
    }
  | { readonly kind: 'bool' }
  /** Text; QMP's null means the empty text. */
  | { readonly kind: 'string' }
  | { readonly kind: 'enum'; readonly values: readonly string[] }
  | { readonly kind: 'list' };

/**
 * What an end was given counts more than a default: if only one of two ends was told, the other follows as far as it can. If it cannot, or was told
 * otherwise:
 *
 * - `least`: the smaller number. `unasked`: more than this an end takes only if it was told so itself.
 * - `common`: the first of these that both take: the source's, the destination's, the default.
 */
export type SettleParameter = { readonly rule: 'least'; readonly unasked: number } | { readonly rule: 'common' };

export interface ParameterDeclaration {
  readonly type: ParameterType;
  readonly default: number | boolean | string | readonly string[];
  /** First QEMU version that knows it; 'vmferry': none does. */
  readonly since: string;
  /** First QEMU version that no longer knows it. */
  readonly removed?: string;
  /** Whether vmferry takes another value than the default; if not, why not, as the end of a sentence. */
  readonly support: 'yes' | { readonly no: string };
  /** Values of an enumeration that vmferry does not take, and why not. */
  readonly refuses?: Readonly<Record<string, string>>;
  /** A running migration follows changes; other parameters count as they were at its start. */
  readonly live?: true;
  /** Which ends it is for; the source alone if absent. */
  readonly ends?: Ends;
  /** How two vmferry ends that differ come together (handshake). Absent: they do not, if `ends` says that they must agree. */
  readonly settle?: SettleParameter;
  /** It matters only while one of these capabilities is on. */
  readonly partOf?: readonly string[];
  /** QEMU calls it experimental. */
  readonly unstable?: true;
  /** Reported by query-migrate-parameters only once set. */
  readonly hidden?: true;
  readonly doc: string;
}

/** What a value of this type must be, as the end of "expects ...". */
export function expectation(type: ParameterType): string {
  switch (type.kind) {
    case 'int':
      return `an integer in the range of ${type.min} to ${exact(type.max)}${type.unit === undefined ? '' : ` ${type.unit}`}`;
    case 'size':
      if (type.powerOfTwoFrom === undefined)
        return `a number of ${type.unit} in the range of 0 to ${exact(type.max ?? UINT64)}`;
      return type.max === undefined
        ? `a power of two no less than ${type.powerOfTwoFrom} bytes`
        : `a power of two in the range of ${type.powerOfTwoFrom} to ${type.max} bytes`;
    case 'bool':
      return 'a boolean';
    case 'string':
      return 'a string or null';
    case 'enum':
      return `one of ${type.values.join(', ')}`;
    case 'list':
      return 'a list';
  }
}

/** The value as this type holds it, or undefined if it is not one. Whole numbers above 2^53 are rounded as JSON readers do. */
export function checkValue(
  type: ParameterType,
  value: unknown,
): number | boolean | string | readonly string[] | undefined {
  switch (type.kind) {
    case 'int':
      return typeof value === 'number' && Number.isInteger(value) && value >= type.min && value <= type.max
        ? value
        : undefined;
    case 'size': {
      if (typeof value !== 'number' || !Number.isInteger(value)) return undefined;
      if (value < (type.powerOfTwoFrom ?? 0) || value > (type.max ?? UINT64)) return undefined;
      return type.powerOfTwoFrom === undefined || Number.isInteger(Math.log2(value)) ? value : undefined;
    }
    case 'bool':
      return typeof value === 'boolean' ? value : undefined;
    case 'string':
      return value === null ? '' : typeof value === 'string' ? value : undefined;
    case 'enum':
      return typeof value === 'string' && type.values.includes(value) ? value : undefined;
    case 'list':
      return Array.isArray(value) ? [...value] : undefined;
  }
}

function exact(limit: number): string {
  return limit >= UINT64 ? '2^64-1' : String(limit);
}
