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

function look(): Census {
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
const STILL_MS = 100;

/** What the process holds once that does not change any more: what has just been closed takes a moment to be gone. */
export async function census(): Promise<Census> {
  for (let before = look(); ; ) {
    await pause(STILL_MS);
    const now = look();
    if (isDeepStrictEqual(now, before)) return now;
    before = now;
  }
}

/** After a moment the process must hold what it held before. */
export async function expectCensus(before: Census): Promise<void> {
  const deadlineMs = performance.now() + SETTLE_MS;
  for (;;) {
    const now = look();
    if (isDeepStrictEqual(now, before)) return;
    if (performance.now() > deadlineMs) assert.deepEqual(now, before, 'something was left behind');
    await pause(10);
  }
}
