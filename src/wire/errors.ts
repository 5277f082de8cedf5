import { FerryError, type ReadFault } from '../base/index.ts';

/** Where in which stream: `offset` in bytes from its start, `path` as `section ram / block pc.ram / page 42`. */
export interface Where {
  readonly stream: string;
  readonly offset: number;
  readonly path: string;
}

/** What can be wrong with bytes from outside. Codes are public and never reused. */
export type WireFault =
  /** The stream ends inside an element; `offset` is that of the first byte that is missing. */
  | (ReadFault & { readonly path: string })
  /** A value the format does not allow here. */
  | (Where & {
      readonly code: 'WIRE_UNEXPECTED_VALUE';
      readonly field: string;
      readonly expected: string;
      readonly found: string;
    })
  /** A length or count above our bound (limits.ts); nothing was allocated for it. */
  | (Where & {
      readonly code: 'WIRE_LIMIT';
      readonly field: string;
      /** Largest accepted value. */
      readonly expected: number;
      readonly found: number;
    })
  /** Legal, but of a feature that vmferry does not speak here. */
  | (Where & { readonly code: 'WIRE_UNSUPPORTED'; readonly feature: string; readonly found: string });

export type WireError = FerryError<WireFault>;

export function wireError(fault: WireFault, cause?: unknown): WireError {
  return new FerryError(fault, `${fault.stream}: offset ${fault.offset}: ${fault.path}: ${sentence(fault)}`, cause);
}

export function isWireError(thrown: unknown): thrown is WireError {
  return thrown instanceof FerryError && thrown.code.startsWith('WIRE_');
}

/** `place` is a Reader (its stream; the offset is given apart: that of the wrong field, not of what was read last). */
export function unexpected(
  place: { readonly stream: string },
  offset: number,
  path: string,
  field: string,
  expected: string,
  found: string | number | bigint,
): WireError {
  return wireError({
    code: 'WIRE_UNEXPECTED_VALUE',
    stream: place.stream,
    offset,
    path,
    field,
    expected,
    found: String(found),
  });
}

export function overLimit(
  place: { readonly stream: string },
  offset: number,
  path: string,
  field: string,
  expected: number,
  found: number,
): WireError {
  return wireError({ code: 'WIRE_LIMIT', stream: place.stream, offset, path, field, expected, found });
}

export function unsupported(
  place: { readonly stream: string },
  offset: number,
  path: string,
  feature: string,
  found: string,
): WireError {
  return wireError({ code: 'WIRE_UNSUPPORTED', stream: place.stream, offset, path, feature, found });
}

/** A path in front of that of the fault; a truncation (which base reports without a path) gets its path here. */
export function locate(error: FerryError<ReadFault> | WireError, prefix: string): WireError {
  const fault = error.fault;
  const path = 'path' in fault ? joinPath(prefix, fault.path) : prefix;
  return wireError({ ...fault, path }, error.cause);
}

export function joinPath(outer: string, inner: string): string {
  if (outer === '') return inner;
  return inner === '' ? outer : `${outer} / ${inner}`;
}

export function hex(value: number, digits = 1): string {
  return '0x' + value.toString(16).padStart(digits, '0');
}

function sentence(fault: WireFault): string {
  switch (fault.code) {
    case 'WIRE_TRUNCATED':
      return `the stream ends here, ${fault.wanted} bytes were wanted and ${fault.available} are there`;
    case 'WIRE_UNEXPECTED_VALUE':
      return `${fault.field}: expected ${fault.expected}, found ${fault.found}`;
    case 'WIRE_LIMIT':
      return `${fault.field}: at most ${fault.expected} accepted, found ${fault.found}`;
    case 'WIRE_UNSUPPORTED':
      return `${fault.feature} is not supported (found ${fault.found})`;
  }
}
