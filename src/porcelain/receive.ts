import { FerryError } from '../base/index.ts';
import { CheckpointWriter } from '../machine/index.ts';
import {
  IncomingMigration,
  type IncomingResult,
  listenAt,
  Objects,
  requireConnections,
  requirePlaceForTls,
} from '../migration/index.ts';
import type { Settings } from '../settings/index.ts';
import { formatAddress, isExposed, parseAddress } from '../transport/index.ts';
import { CheckpointHost, type ServeHost } from './checkpoint-host.ts';
import type { Outcome, Progress, ProgressListener, RamStatistics } from './outcome.ts';

const PROGRESS_MS = 200;
/** A checkpoint's target page size, bytes. */
const PAGE_SIZE = 4096;

export interface ReceiveOptions {
  /** Where to wait for a source: a migration URI. */
  readonly uri: string;
  /** The checkpoint; it is there when all of the machine is in it, and not before. */
  readonly file: string;
  readonly settings: Settings;
  /** With the TLS credentials that the settings name. */
  readonly objects?: Objects | undefined;
  /** Aborting it cancels. */
  readonly signal?: AbortSignal | undefined;
  readonly progress?: ProgressListener | undefined;
  /** Told once, with the real port: from now on a source may come. */
  readonly listening?: (uri: string) => void;
  /** Told before that if it is in clear text where other machines than this one can come. */
  readonly exposed?: (uri: string) => void;
  readonly serve?: ServeHost | undefined;
}

/** Waits for one source and takes its machine into a checkpoint. Throws only before a source can have come: no such folder, port in use. */
export async function receive(options: ReceiveOptions): Promise<Outcome> {
  const { file, settings, signal, objects = new Objects() } = options;
  signal?.throwIfAborted();
  const address = parseAddress(options.uri);
  requireConnections(settings, address);
  const tls = objects.tls(settings, 'server');
  requirePlaceForTls(tls, settings, address);
  const listener = await listenAt(address, { tls, settings });
  const machine = new CheckpointWriter(file, { directIo: settings.parameter('direct-io') });
  try {
    await machine.open();
  } catch (error) {
    listener.close();
    throw error;
  }
  const migration: IncomingMigration = new IncomingMigration({
    machine,
    settings,
    takesAnyMachine: true,
    listener,
    observer: { status: (status) => host.moved(status) },
  });
  const host = new CheckpointHost(settings, objects, migration, listener.address);
  const cancel = () => migration.cancel();
  signal?.addEventListener('abort', cancel);
  const timer = setInterval(() => options.progress?.(received(migration)), PROGRESS_MS);
  let server: { close(): Promise<void> } | undefined;
  try {
    server = await options.serve?.(host);
    const run = migration.run();
    if (tls === undefined && isExposed(listener.address)) options.exposed?.(formatAddress(listener.address));
    options.listening?.(formatAddress(listener.address));
    return outcomeOf(file, migration, await run);
  } finally {
    clearInterval(timer);
    signal?.removeEventListener('abort', cancel);
    listener.close();
    // Without effect on one that is complete.
    await machine.discard();
    await server?.close();
  }
}

function received(migration: IncomingMigration): Progress {
  return { status: migration.status, totalTimeMs: Math.round(migration.progress().ms), ram: ramOf(migration) };
}

/** What a destination knows of `ram`: no rounds and no remaining, those are the source's. */
function ramOf(migration: IncomingMigration): RamStatistics {
  const { bytes, pages, ramTotal, ms } = migration.progress();
  return {
    transferred: bytes,
    total: ramTotal,
    normal: pages.normal,
    duplicate: pages.zero,
    'normal-bytes': pages.normal * PAGE_SIZE,
    'page-size': PAGE_SIZE,
    mbps: ms > 0 ? (bytes * 8) / 1000 / ms : 0,
  };
}

function outcomeOf(file: string, migration: IncomingMigration, result: IncomingResult): Outcome {
  const figures = { totalTimeMs: Math.round(migration.progress().ms), ram: ramOf(migration) };
  if (result.status === 'completed') {
    const doubt = ' The source may not have heard of it and may run on: then this is a copy of the past.';
    return { ...figures, status: 'completed', message: `The machine is in ${file}.${result.confirmed ? '' : doubt}` };
  }
  const { error } = result;
  const cancelled = error instanceof FerryError && error.code === 'MIGRATION_CANCELLED';
  return {
    ...figures,
    status: cancelled ? 'cancelled' : 'failed',
    ...(error === undefined ? {} : { error }),
    message: `${file} was not written.`,
  };
}
