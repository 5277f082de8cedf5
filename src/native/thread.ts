import { findLibc } from './libc.ts';

const PR_SET_NAME = 15;

/** The kernel's number of this thread, as `ps -T` shows it; -1 where it cannot be known. */
export function threadId(): number {
  return findLibc()?.gettid() ?? -1;
}

/** The name of this thread for `ps -T` and debuggers: its first 15 bytes. */
export function nameThread(name: string): void {
  findLibc()?.prctl(PR_SET_NAME, name);
}
