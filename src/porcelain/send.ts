import { setTimeout as pause } from 'node:timers/promises';
import { CheckpointReader, type SourceMachine } from '../machine/index.ts';
import {
  connector,
  dialer,
  hasReturnPath,
  Objects,
  OutgoingMigration,
  requireConnections,
  requirePlaceForTls,
  routeTo,
} from '../migration/index.ts';
import type { Settings } from '../settings/index.ts';
import { parseAddress } from '../transport/index.ts';
import { CheckpointHost, type ServeHost } from './checkpoint-host.ts';
import { figuresOf, type Outcome, type ProgressListener, progressOf } from './outcome.ts';
import type { PostcopyDriver, SendingEnd } from './postcopy.ts';

const PROGRESS_MS = 100;

export interface SendOptions {
  readonly file: string;
  /** Where the destination listens: a migration URI. */
  readonly uri: string;
  readonly settings: Settings;
  /** With the TLS credentials that the settings name. */
  readonly objects?: Objects | undefined;
  /** The guest runs at the destination at once, its memory follows as it is wanted (capability postcopy-ram). */
  readonly postcopy?: boolean | undefined;
  /** Who makes another connection when the one of a postcopy breaks; without, it waits for QMP. */
  readonly driver?: ((source: SendingEnd) => PostcopyDriver) | undefined;
  /** Aborting it cancels. */
  readonly signal?: AbortSignal | undefined;
  readonly progress?: ProgressListener | undefined;
  readonly serve?: ServeHost | undefined;
}

/** Sends the machine of a checkpoint. Throws only before it is sent: no such file, not a checkpoint. */
export async function send(options: SendOptions): Promise<Outcome> {
  const directIo = options.settings.parameter('direct-io');
  const reader = await CheckpointReader.open(options.file, { directIo });
  try {
    return await sendMachine(reader, options);
  } finally {
    await reader.close();
  }
}

/** The same for a checkpoint that is open. */
export async function sendMachine(machine: SourceMachine, options: Omit<SendOptions, 'file'>): Promise<Outcome> {
  const { settings, signal, objects = new Objects() } = options;
  signal?.throwIfAborted();
  const address = parseAddress(options.uri);
  requireConnections(settings, address);
  const tls = objects.tls(settings, 'client');
  requirePlaceForTls(tls, settings, address);
  const migration: OutgoingMigration = new OutgoingMigration({
    machine,
    settings,
    connect: connector(address, { tls, settings }),
    dial: dialer(address, { tls, settings }),
    secured: tls !== undefined,
    returnPath: (channel) => hasReturnPath(address, channel, settings),
    observer: { status: (status) => host.moved(status) },
  });
  if (options.postcopy === true) migration.startPostcopy();
  const host = new CheckpointHost(settings, objects, migration);
  const cancel = () => {
    try {
      // Nobody may ever come to resume it.
      if (migration.status === 'postcopy-paused') migration.abandon();
      else migration.cancel();
    } catch {
      // Handed over already: the end that comes says so.
    }
  };
  signal?.addEventListener('abort', cancel);
  const over = new AbortController();
  const driver = options.driver?.({
    startPostcopy: async () => migration.startPostcopy(),
    resume: async (uri) => migration.postcopy.resume(routeTo(parseAddress(uri), { tls, settings })),
    isPaused: async () => migration.status === 'postcopy-paused',
    state: async () => machine.runState,
  });
  const steering = driver && steer(migration, driver, over.signal);
  steering?.catch(() => {});
  const timer = setInterval(() => options.progress?.(progressOf(migration.info())), PROGRESS_MS);
  let server: { close(): Promise<void> } | undefined;
  try {
    server = await options.serve?.(host);
    const { status, info, ...rest } = await migration.run();
    options.progress?.(progressOf(info));
    // No guest ran, so none stood still.
    const { downtime: _, ...figures } = info;
    return {
      ...figuresOf(figures),
      status,
      ...('error' in rest ? { error: rest.error } : {}),
      message: status === 'completed' ? 'The destination has the machine.' : '',
    };
  } finally {
    clearInterval(timer);
    over.abort();
    await steering;
    signal?.removeEventListener('abort', cancel);
    await server?.close();
  }
}

/** To the end of the migration, or until nothing more can be done: then it is ended here. */
async function steer(migration: OutgoingMigration, driver: PostcopyDriver, over: AbortSignal): Promise<void> {
  while (!over.aborted) {
    await driver.look(migration.info());
    if (driver.over) return migration.abandon();
    await pause(PROGRESS_MS, undefined, { signal: over }).catch(() => {});
  }
}
