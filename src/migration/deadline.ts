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
export async function within<T>(promise: Promise<T>, deadlineMs: number, waitingFor: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const expired = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () =>
        reject(
          new MigrationError(
            { code: 'MIGRATION_DEADLINE', waitingFor, deadlineMs },
            `waited ${deadlineMs} ms for ${waitingFor}`,
          ),
        ),
      deadlineMs,
    );
  });
  try {
    return await Promise.race([promise, expired]);
  } finally {
    clearTimeout(timer);
  }
}
