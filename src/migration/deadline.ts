import { type SettingsView, type TimedWait, WAITS, waitDeclaration } from '../settings/index.ts';
import { MigrationError } from './errors.ts';

/** `promise`, or what `signal` aborts with. The promise itself must have an owner that ends it. */
export function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

/** `promise`, or MIGRATION_DEADLINE after `deadlineMs`. The promise itself must have an owner that ends it. */
export async function within<T>(
  promise: Promise<T>,
  deadlineMs: number,
  waitingFor: string,
  hint?: string,
): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const expired = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(overdue(waitingFor, deadlineMs, hint)), deadlineMs);
  });
  try {
    return await Promise.race([promise, expired]);
  } finally {
    clearTimeout(timer);
  }
}

export function overdue(waitingFor: string, deadlineMs: number, hint?: string): MigrationError {
  const message = `waited ${deadlineMs} ms for ${waitingFor}${hint === undefined ? '' : `: ${hint}`}`;
  return new MigrationError({ code: 'MIGRATION_DEADLINE', waitingFor, deadlineMs }, message);
}

/** `promise`, or MIGRATION_DEADLINE after the declared time. The promise itself must have an owner that ends it. */
export function inTime<T>(promise: Promise<T>, wait: TimedWait, settings: SettingsView): Promise<T> {
  const { what, hint } = waitDeclaration(wait);
  return within(promise, settings.parameter(WAITS[wait].deadline), what, hint);
}
