import { libc } from './libc.ts';

const PR_SET_NAME = 15;

/** The kernel's number of this thread, as `ps -T` shows it; -1 where it cannot be known. */
export function threadId(): number {
  return libc()?.gettid() ?? -1;
}

/** System calls are bound in each thread by itself, when they are first used; this does it beforehand. */
export function loadNative(): void {
  libc();
}

/** The name of this thread for `ps -T` and debuggers: its first 15 bytes. */
export function nameThread(name: string): void {
  libc()?.prctl(PR_SET_NAME, name);
}
