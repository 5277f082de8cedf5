import { setMaxListeners } from 'node:events';
import type { Connection } from '../../transport/index.ts';

/** A further connection to the destination; `role` names it. Must end when `signal` aborts. */
export type Dial = (role: string, signal: AbortSignal) => Promise<Connection>;

export interface DialAllOptions<T> {
  readonly dial: Dial;
  readonly roles: readonly string[];
  readonly signal: AbortSignal;
  /** Takes a connection over; what it throws fails all. */
  readonly take: (connection: Connection, index: number) => T;
  /** Gives back what was taken, as another one has failed. */
  readonly drop: (taken: T) => void;
}

/** All connections at once, by index, or none: what one cannot have the others need not wait for. Throws what the first one threw that failed. */
export async function dialAll<T>({ dial, roles, signal, take, drop }: DialAllOptions<T>): Promise<T[]> {
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  // Each attempt listens: that many are no leak.
  setMaxListeners(roles.length, either);
  const opened = await Promise.allSettled(
    roles.map(async (role, index) => {
      try {
        return take(await dial(role, either), index);
      } catch (thrown) {
        stop.abort(thrown);
        throw thrown;
      }
    }),
  );
  const taken = opened.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
  if (taken.length === roles.length) return taken;
  taken.forEach(drop);
  throw stop.signal.reason;
}
