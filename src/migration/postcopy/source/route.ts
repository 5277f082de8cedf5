import type { Address, Channel } from '../../../transport/index.ts';
import { type ConnectTerms, connector, dialer } from '../../many-connections.ts';
import type { Dial } from '../../source/dial-all.ts';

/** A way to the destination, for a paused postcopy. What it makes must end when its signal aborts. */
export interface Route {
  readonly connect: (signal: AbortSignal) => Promise<Channel>;
  /** Absent where there can be only one connection. */
  readonly dial?: Dial | undefined;
}

export function routeTo(address: Address, terms: ConnectTerms = {}): Route {
  return { connect: connector(address, terms), dial: dialer(address, terms) };
}
