import { setMaxListeners } from 'node:events';
import type { Connection } from '../../transport/index.ts';
import { notTaken } from '../gave-up.ts';

/** A further connection to the destination; `role` names it. Must end when `signal` aborts. */
export type Dial = (role: string, signal: AbortSignal) => Promise<Connection>;

export interface DialAllOptions<T> {
  readonly dial: Dial;
  readonly roles: readonly string[];
  readonly signal: AbortSignal;
  /** The settings that they depend on, as `notTaken` has it. */
  readonly compare: string;
  /** Takes a connection over; what it throws fails all. */
  readonly take: (connection: Connection, index: number) => T;
  /** Gives back what was taken, as another one has failed. */
  readonly drop: (taken: T) => void;
}

/**
 * All connections at once, by index, or none: what one cannot have the others need not wait for. Throws what the first one threw that failed:
 * TransportError, MIGRATION_CHANNEL_NOT_TAKEN, and what `take` throws.
 */
export async function dialAll<T>({ dial, roles, signal, compare, take, drop }: DialAllOptions<T>): Promise<T[]> {
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  // Each attempt listens: that many are no leak.
  setMaxListeners(roles.length, either);
  const opened = await Promise.allSettled(
    roles.map(async (role, index) => {
      try {
        const connection = await dial(role, either).catch((thrown) => Promise.reject(notTaken(role, compare, thrown)));
        return take(connection, index);
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
