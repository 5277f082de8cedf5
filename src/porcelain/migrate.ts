import { setTimeout as pause } from 'node:timers/promises';
import type { Assignments } from '../settings/index.ts';
import { formatAddress, parseAddress } from '../transport/index.ts';
import { type DriveOptions, driveSource, failureOf } from './drive.ts';
import { PorcelainError, wrongPeerState } from './errors.ts';
import { figuresOf, type MigrationFigures, type Outcome } from './outcome.ts';
import { hasArrived, Peer } from './peer.ts';
import { applySettings } from './peer-settings.ts';
import { withPrivateSocket } from './private-socket.ts';
import { settle } from './settle.ts';
import { assignmentsFor } from './sides.ts';

/** Without a return path the source is done before the destination is: so long it may take to start, ms. */
const ARRIVAL_MS = 60_000;
const POLL_MS = 100;

export interface MigrateOptions extends Pick<DriveOptions, 'signal' | 'progress'> {
  /** QMP socket of the process that has the machine. */
  readonly source: string;
  /**
   * QMP socket of a process in `-incoming defer`, and where it shall listen (default: a private unix socket; tcp with port 0 is
   * possible); or, for a destination that cannot be asked, only the URI where it listens already.
   */
  readonly destination: { readonly qmp: string; readonly uri?: string | undefined } | { readonly uri: string };
  /** What must match is set on both sides. Not put back afterwards. */
  readonly settings: Assignments;
}

/**
 * Moves a machine from one process to another, QEMU or vmferry, and says where the guest is at the end. Throws only before the guest is
 * touched: nobody answers, a side is in the wrong state, a setting is unknown there.
 */
export async function migrate(options: MigrateOptions): Promise<Outcome> {
  const source = await Peer.connect(options.source, options.signal);
  try {
    if (!('qmp' in options.destination)) return await move(source, undefined, options.destination.uri, options);
    const { qmp, uri } = options.destination;
    const destination = await Peer.connect(qmp, options.signal);
    try {
      await destination.expectWaiting();
      if (uri !== undefined) return await move(source, destination, uri, options);
      return await withPrivateSocket((path) => move(source, destination, `unix:${path}`, options));
    } finally {
      destination.close();
    }
  } finally {
    source.close();
  }
}

async function move(
  source: Peer,
  destination: Peer | undefined,
  uri: string,
  options: MigrateOptions,
): Promise<Outcome> {
  const { running, status } = await source.execute('query-status');
  if (status === 'inmigrate') {
    throw wrongPeerState(
      source.path,
      'a guest',
      status,
      'the process waits for a migration itself: it has no guest to send',
    );
  }
  const returnPath = { capabilities: [{ capability: 'return-path', state: true }], parameters: {} } as const;
  const settings = {
    capabilities: [...returnPath.capabilities, ...options.settings.capabilities],
    parameters: options.settings.parameters,
  };
  await applySettings(source, assignmentsFor('source', settings));
  let target = uri;
  if (destination !== undefined) {
    await applySettings(destination, assignmentsFor('destination', settings));
    await listenThere(destination, uri);
    target = await reachable(destination, uri);
  }
  let figures: MigrationFigures = {};
  const [driven] = await Promise.allSettled([
    driveSource(source, {
      uri: target,
      signal: options.signal,
      progress: options.progress,
    }),
  ]);
  if (driven.status === 'fulfilled') figures = driven.value;
  const error = failureOf(source, driven);
  if (error !== undefined) return settle({ source, destination, wasRunning: running, figures, error });
  return completed(source, destination, figures);
}

/** Sees to it that the guest is really there: the source's word alone may be no more than "all sent". */
async function completed(source: Peer, destination: Peer | undefined, figures: MigrationFigures): Promise<Outcome> {
  const base = { ...figuresOf(figures), source: await source.state() };
  if (destination === undefined) return { ...base, status: 'completed', message: 'The guest has left the source.' };
  const state = await arrival(destination);
  if (hasArrived(state)) {
    return { ...base, destination: state, status: 'completed', message: `The guest is ${state} on the destination.` };
  }
  return {
    ...base,
    destination: state,
    status: 'failed',
    error: new PorcelainError(
      { code: 'SIDES_DISAGREE', source: 'completed', destination: state },
      `${destination.path}: the source has sent everything, but the destination is ${state}`,
    ),
    message:
      `The destination is ${state} though the source has completed. The guest is stopped on the source (${base.source}): the QMP command ` +
      "'cont' lets it run there again, if it is certain that it does not run on the destination.",
  };
}

async function arrival(destination: Peer) {
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
async function reachable(destination: Peer, uri: string): Promise<string> {
  const asked = parseAddress(uri);
  if (asked.kind !== 'tcp') return uri;
  const { 'socket-address': listening } = await destination.execute('query-migrate');
  const inet = listening?.find((address) => address.type === 'inet');
  const host = { '0.0.0.0': '127.0.0.1', '::': '::1', '': '127.0.0.1' }[asked.host] ?? asked.host;
  return formatAddress({ ...asked, host, port: inet === undefined ? asked.port : Number(inet.port) });
}
