/** The destination's part of a migration that is driven from outside: over QMP, in a process in `-incoming defer`. */
import { setTimeout as pause } from 'node:timers/promises';
import { PorcelainError } from './errors.ts';
import type { GuestState } from './outcome.ts';
import type { Peer } from './peer.ts';

/** Without a return path the source is done before the destination is: so long it may take to start, ms. */
const ARRIVAL_MS = 60_000;
const POLL_MS = 100;

/** The state of a destination that has everything, once it has taken it. */
export async function arrival(destination: Peer) {
  const deadline = performance.now() + ARRIVAL_MS;
  for (;;) {
    const state = await destination.state();
    if (state !== 'inmigrate' || performance.now() > deadline) return state;
    await pause(POLL_MS);
  }
}

/** A QEMU of 9.1 or later stays to say why it failed, if asked to; others refuse the argument and end themselves instead. */
export async function listenThere(destination: Peer, uri: string): Promise<void> {
  try {
    await destination.execute('migrate-incoming', { uri, 'exit-on-error': false });
  } catch (error) {
    if (!(error instanceof Error && error.message.includes('exit-on-error'))) throw error;
    await destination.execute('migrate-incoming', { uri });
  }
}

/** The URI for the source: with the port that was really chosen, and a host that can be connected to. */
export async function reachable(destination: Peer, uri: string): Promise<string> {
  const match = /^tcp:(.*):(\d+)$/.exec(uri);
  if (match === null) return uri;
  const [, asked = '', port] = match;
  const host = { '': '127.0.0.1', '0.0.0.0': '127.0.0.1', '[::]': '[::1]' }[asked] ?? asked;
  const { 'socket-address': listening } = await destination.execute('query-migrate');
  // A QEMU that has listened before tells of that too, in front.
  const inet = listening?.findLast((address) => address.type === 'inet');
  return `tcp:${host}:${inet?.port ?? port}`;
}

/** A destination that failed and lives on (exit-on-error off) knows why; it is then ended, as it would have done by itself. */
export async function withReasonOf(
  destination: Peer | undefined,
  state: GuestState | undefined,
  error: Error,
): Promise<Error> {
  if (destination === undefined || state !== 'inmigrate') return error;
  try {
    const info = await destination.execute('query-migrate');
    if (info.status !== 'failed') return error;
    await destination.execute('quit').catch(() => {});
    const desc = info['error-desc'];
    if (desc === undefined) return error;
    const fault = { code: 'PEER_MIGRATION', peer: destination.path, status: 'failed', desc } as const;
    return new PorcelainError(fault, `${destination.path}: ${desc}`, error);
  } catch {
    return error;
  }
}
