/**
 * The one error class. A room lists its faults as a union of `{code, ...facts}` in its own `errors.ts`; codes are
 * public, stable and never reused. Tests compare `fault`, people read `message`, causes are chained and not pasted in.
 */
export interface FaultBase {
  readonly code: string;
}

export class FerryError<F extends FaultBase = FaultBase> extends Error {
  readonly fault: F;

  constructor(fault: F, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'FerryError';
    this.fault = fault;
  }

  get code(): F['code'] {
    return this.fault.code;
  }
}

/** Any thrown value as an Error, for `cause` and for messages. */
export function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown));
}

/** One line: the message and those of all its causes, outermost first. */
export function explain(thrown: unknown): string {
  const parts: string[] = [];
  for (
    let at: unknown = thrown;
    at !== undefined && parts.length < 8;
    at = at instanceof Error ? at.cause : undefined
  ) {
    const text = asError(at).message;
    if (text !== '' && !parts.at(-1)?.includes(text)) parts.push(text);
  }
  return parts.join(': ');
}
