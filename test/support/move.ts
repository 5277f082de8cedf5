/** One migration between two machines of this process, over any pair of channels. */
import type { DestinationMachine, SourceMachine } from '../../src/machine/index.ts';
import {
  IncomingMigration,
  type IncomingObserver,
  type IncomingResult,
  OutgoingMigration,
  type OutgoingObserver,
  type OutgoingResult,
  type SourceListener,
} from '../../src/migration/index.ts';
import { Settings, type SettingsView } from '../../src/settings/index.ts';
import type { Channel } from '../../src/transport/index.ts';

export interface MoveOptions {
  readonly source: SourceMachine;
  readonly destination: DestinationMachine;
  /** Source's end, destination's end. */
  readonly channels: readonly [Channel, Channel];
  readonly settings?: SettingsView;
  readonly destinationSettings?: SettingsView;
  readonly returnPath?: boolean;
  readonly outgoing?: OutgoingObserver;
  readonly incoming?: IncomingObserver;
}

export interface Move {
  readonly outgoing: OutgoingMigration;
  readonly incoming: IncomingMigration;
  /** Both have ended, in whatever way. */
  readonly ended: Promise<{ readonly source: OutgoingResult; readonly destination: IncomingResult }>;
}

/** Settings for tests: unlimited bandwidth, and what else is given. */
export function testSettings(change: (settings: Settings) => void = () => {}): Settings {
  const settings = new Settings();
  settings.setParameters({ 'max-bandwidth': 0 });
  change(settings);
  return settings;
}

/** A listener to which one channel comes, and nobody else. */
export function oneChannel(accept: (signal?: AbortSignal) => Promise<Channel>): SourceListener {
  return { accept, next: () => Promise.reject(new Error('there is one channel only')), close: () => {}, single: true };
}

export function move(options: MoveOptions): Move {
  const settings = options.settings ?? testSettings();
  const outgoing = new OutgoingMigration({
    machine: options.source,
    settings,
    connect: async () => options.channels[0],
    returnPath: () => options.returnPath ?? true,
    ...(options.outgoing === undefined ? {} : { observer: options.outgoing }),
  });
  const incoming = new IncomingMigration({
    machine: options.destination,
    settings: options.destinationSettings ?? settings,
    listener: oneChannel(async () => options.channels[1]),
    takesAnyMachine: false,
    ...(options.incoming === undefined ? {} : { observer: options.incoming }),
  });
  const ended = Promise.all([outgoing.run(), incoming.run()]).then(([source, destination]) => ({
    source,
    destination,
  }));
  return { outgoing, incoming, ended };
}
