import { type Address, type Channel, connect, type TlsTerms } from '../../../transport/index.ts';
import { dialer } from '../../many-connections.ts';
import type { Dial } from '../../source/multifd.ts';

/** A way to the destination, for a paused postcopy. What it makes must end when its signal aborts. */
export interface Route {
  readonly connect: (signal: AbortSignal) => Promise<Channel>;
  /** Absent where there can be only one connection. */
  readonly dial?: Dial | undefined;
}

export function routeTo(address: Address, tls?: TlsTerms): Route {
  return { connect: (signal) => connect(address, { signal, tls }), dial: dialer(address, tls) };
}
