import { getSystemErrorName } from 'node:util';
import { FerryError } from '../base/index.ts';

export type NativeFault =
  /** System calls cannot be made from here: another platform, or koffi cannot be loaded. */
  | { readonly code: 'NATIVE_UNAVAILABLE'; readonly what: string }
  /** A system call failed; `errno` is the system's name, e.g. ECONNRESET. */
  | { readonly code: 'NATIVE_CALL'; readonly call: string; readonly errno: string };

export class NativeError extends FerryError<NativeFault> {}

/** `errno`: the number, as the system gives it. */
export function callFailed(call: string, errno: number): NativeError {
  const name = getSystemErrorName(-errno);
  return new NativeError({ code: 'NATIVE_CALL', call, errno: name }, `${call}: ${name}`);
}

/** `errno`: the system's name. */
export function failedWith(thrown: unknown, errno: string): boolean {
  return thrown instanceof NativeError && thrown.fault.code === 'NATIVE_CALL' && thrown.fault.errno === errno;
}
