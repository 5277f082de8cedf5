import type { Finding } from '../migration/index.ts';
import type { Assignments } from '../settings/index.ts';
import { compare, HANDSHAKE, misfit } from './check.ts';
import { arrival, listenThere, reachable } from './destination.ts';
import { type DriveOptions, driveSource, failureOf } from './drive.ts';
import { PorcelainError } from './errors.ts';
import { figuresOf, type MigrationFigures, type Outcome } from './outcome.ts';
import { hasArrived, Peer } from './peer.ts';
import { applySettings } from './peer-settings.ts';
import { PostcopyDriver, type PostcopyOptions, sendingPeer } from './postcopy.ts';
import { withPrivateSocket } from './private-socket.ts';
import { settle } from './settle.ts';
import { assignmentsFor } from './sides.ts';

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
  /** Do not compare the two ends first (`check`); a destination given by its URI never is. */
  readonly unchecked?: boolean | undefined;
  /** The guest runs on the destination after some rounds, and its memory follows. */
  readonly postcopy?: PostcopyOptions | undefined;
  /** What the comparison has found that need not stop the migration. */
  readonly warn?: (finding: Finding) => void;
}

/**
 * Moves a machine from one process to another, QEMU or vmferry, and says where the guest is at the end. Throws only before the guest is
 * touched: nobody answers, a side is in the wrong state, a setting is unknown there, the two do not fit.
 */
export async function migrate(options: MigrateOptions): Promise<Outcome> {
  const source = await Peer.connect(options.source, options.signal);
  try {
    if (!('qmp' in options.destination)) {
      const { uri } = options.destination;
      return await move(source, undefined, () => uri, options);
    }
    const { qmp, uri } = options.destination;
    const destination = await Peer.connect(qmp, options.signal);
    try {
      await destination.expectWaiting();
      if (uri !== undefined) return await move(source, destination, () => uri, options);
      return await withPrivateSocket((path) => {
        let sockets = 0;
        return move(source, destination, () => `unix:${path}.${sockets++}`, options);
      });
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
  nextUri: () => string,
  options: MigrateOptions,
): Promise<Outcome> {
  const wasLive = await source.expectGuest('send');
  const ours: Assignments['capabilities'] = [
    { capability: 'return-path', state: true },
    ...(options.postcopy === undefined ? [] : [{ capability: 'postcopy-ram', state: true } as const]),
  ];
  const settings = {
    capabilities: [...ours, ...options.settings.capabilities],
    parameters: options.settings.parameters,
  };
  await applySettings(source, assignmentsFor('source', settings));
  const { postcopy: wanted, signal } = options;
  const postcopy = wanted && new PostcopyDriver(wanted, { source: sendingPeer(source), destination, nextUri, signal });
  const uri = nextUri();
  let target = uri;
  let undo = async () => {};
  if (destination !== undefined) {
    await applySettings(destination, assignmentsFor('destination', settings));
    const canShakeHands = options.unchecked !== true && (await expectFit(source, destination, uri, options));
    if (canShakeHands) undo = await shakeHands([source, destination], options.settings);
  }
  try {
    if (destination !== undefined) {
      await listenThere(destination, uri);
      target = await reachable(destination, uri);
    }
    const [driven] = await Promise.allSettled([
      driveSource(source, { uri: target, signal, progress: options.progress, postcopy }),
    ]);
    const figures: MigrationFigures = driven.status === 'fulfilled' ? driven.value : {};
    const error = failureOf(source, driven);
    const late = await postcopy?.outcome(figures, error);
    if (late !== undefined) return late;
    if (error !== undefined) return await settle({ source, destination, wasLive, figures, error });
    return await completed(source, destination, figures);
  } finally {
    await undo();
  }
}

/** Where the other end can answer. */
const SOCKET = /^(tcp|unix):/;

/** Throws ENDS_DIFFER with all reasons. Returns whether the two ends could compare themselves. */
async function expectFit(
  source: Peer,
  destination: Peer,
  uri: string,
  { settings, warn }: MigrateOptions,
): Promise<boolean> {
  const asked = settings.capabilities.find(({ capability }) => capability === HANDSHAKE);
  const { findings, canShakeHands } = await compare(source, destination, SOCKET.test(uri) && asked?.state !== false);
  for (const finding of findings) if (finding.verdict === 'warn') warn?.(finding);
  const error = misfit(findings);
  if (error !== undefined) throw error;
  return canShakeHands;
}

/**
 * Two vmferry ends are told to compare themselves once more, over the channel that they will use. For this migration only: the next peer of theirs may
 * be a QEMU.
 */
async function shakeHands(ends: readonly Peer[], { capabilities }: Assignments): Promise<() => Promise<void>> {
  if (capabilities.some(({ capability }) => capability === HANDSHAKE)) return async () => {};
  const shake = { capabilities: [{ capability: HANDSHAKE, state: true }], parameters: {} } as const;
  const undos = await Promise.all(ends.map((end) => applySettings(end, shake)));
  return async () => {
    // A process that is gone, or waits for a person, keeps what it has.
    await Promise.allSettled(undos.map((undo) => undo()));
  };
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
