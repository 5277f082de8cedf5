import { getSystemErrorName } from 'node:util';
import { FerryError } from '../base/index.ts';

export type NativeFault =
  /** System calls cannot be made from here: another platform, or koffi cannot be loaded. */
  | { readonly code: 'NATIVE_UNAVAILABLE'; readonly what: string }
  /** A system call failed; `errno` is the system's name, e.g. ECONNRESET. */
  | { readonly code: 'NATIVE_CALL'; readonly call: string; readonly errno: string }
  /** A TLS session failed, or the peer ended it with an alert; `reason` is OpenSSL's. */
  | { readonly code: 'NATIVE_TLS'; readonly call: string; readonly reason: string }
  /** The connection has ended, the TLS session on it has not: what was to come has been cut off. */
  | { readonly code: 'NATIVE_TLS_CUT' };

export class NativeError extends FerryError<NativeFault> {}

/** `errno`: the number, as the system gives it. */
export function callFailed(call: string, errno: number): NativeError {
  const name = getSystemErrorName(-errno);
  return new NativeError({ code: 'NATIVE_CALL', call, errno: name }, `${call}: ${name}`);
}

export function tlsFailed(
  call: string,
  { cut, reason }: { readonly cut: boolean; readonly reason: string },
): NativeError {
  return cut
    ? new NativeError({ code: 'NATIVE_TLS_CUT' }, 'the connection has ended before its TLS session')
    : new NativeError({ code: 'NATIVE_TLS', call, reason }, `${call}: ${reason}`);
}

/** `errno`: the system's name. */
export function failedWith(thrown: unknown, errno: string): boolean {
  return thrown instanceof NativeError && thrown.fault.code === 'NATIVE_CALL' && thrown.fault.errno === errno;
}
