/** What a process holds: a case that leaves a socket, a file, a listener, a timer or a thread behind shows as a difference. */
import assert from 'node:assert/strict';
import { readdirSync, readlinkSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';

export interface Census {
  /** What each open descriptor is: `socket:`, `anon_inode:[eventpoll]`, a path. */
  readonly descriptors: readonly string[];
  readonly threads: number;
  /** What keeps the event loop awake: sockets, servers, timers, requests. */
  readonly resources: readonly string[];
}

export function census(): Census {
  const descriptors = readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`).replace(/\d{2,}/, 'N')];
    } catch {
      return []; // that of the reading itself
    }
  });
  const resources = process.getActiveResourcesInfo().filter((name) => name !== 'Immediate');
  return {
    descriptors: descriptors.sort(),
    threads: readdirSync('/proc/self/task').length,
    resources: resources.sort(),
  };
}

const SETTLE_MS = 5_000;

/** What is closed takes a moment to be gone; then the process must hold what it held before. */
export async function expectCensus(before: Census): Promise<void> {
  const deadlineMs = performance.now() + SETTLE_MS;
  for (;;) {
    const now = census();
    if (isDeepStrictEqual(now, before)) return;
    if (performance.now() > deadlineMs) assert.deepEqual(now, before, 'something was left behind');
    await pause(10);
  }
}
