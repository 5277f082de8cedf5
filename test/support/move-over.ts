/** One migration between two machines of this process, over an address where any number of connections can be made. */
import type { DestinationMachine, SourceMachine } from '../../src/machine/index.ts';
import {
  dialer,
  IncomingMigration,
  type IncomingObserver,
  OutgoingMigration,
  type OutgoingObserver,
} from '../../src/migration/index.ts';
import type { SettingsView } from '../../src/settings/index.ts';
import { type Address, connect, type Listener, listen } from '../../src/transport/index.ts';
import type { Move } from './move.ts';
import type { TlsPair } from './tls-folders.ts';

export interface MoveOverOptions {
  readonly source: SourceMachine;
  readonly destination: DestinationMachine;
  readonly settings: SettingsView;
  readonly destinationSettings?: SettingsView;
  /** Default: a port on loopback. */
  readonly address?: Address;
  /** Where the source connects to, given where the destination listens; default there. */
  readonly via?: (listening: Address) => Promise<Address>;
  /** In TLS on these terms; the address is 127.0.0.1 then. */
  readonly tls?: TlsPair;
  readonly outgoing?: OutgoingObserver;
  readonly incoming?: IncomingObserver;
}

export async function moveOver(options: MoveOverOptions): Promise<Move & { readonly listener: Listener }> {
  const { source, destination, settings, tls } = options;
  const listener = await listen(options.address ?? { kind: 'tcp', host: '127.0.0.1', port: 0 }, { tls: tls?.server });
  const target = (await options.via?.(listener.address)) ?? listener.address;
  const outgoing = new OutgoingMigration({
    machine: source,
    settings,
    connect: (signal) => connect(target, { signal, tls: tls?.client }),
    dial: dialer(target, { tls: tls?.client }),
    secured: tls !== undefined,
    returnPath: () => true,
    ...(options.outgoing === undefined ? {} : { observer: options.outgoing }),
  });
  const incoming = new IncomingMigration({
    machine: destination,
    settings: options.destinationSettings ?? settings,
    listener,
    takesAnyMachine: false,
    ...(options.incoming === undefined ? {} : { observer: options.incoming }),
  });
  const ended = Promise.all([outgoing.run(), incoming.run()]).then(([source, destination]) => ({
    source,
    destination,
  }));
  return { outgoing, incoming, ended, listener };
}
