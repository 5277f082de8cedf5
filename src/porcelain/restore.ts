import { setTimeout as pause } from 'node:timers/promises';
import { FerryError } from '../base/index.ts';
import { CheckpointReader, type SourceMachine } from '../machine/index.ts';
import { type Assignments, Settings } from '../settings/index.ts';
import { arrival, listenThere, reachable, withReasonOf } from './destination.ts';
import type { DriveOptions } from './drive.ts';
import { machineTypeOf } from './end-facts.ts';
import { PorcelainError } from './errors.ts';
import { GONE, type Outcome } from './outcome.ts';
import { hasArrived, Peer } from './peer.ts';
import { applySettings } from './peer-settings.ts';
import { plainStream } from './plain.ts';
import { PostcopyDriver, type SendingEnd } from './postcopy.ts';
import { withPrivateSocket } from './private-socket.ts';
import { sendMachine } from './send.ts';
import { assignmentsFor } from './sides.ts';
import { ownTls, peerTls, type TlsChoice } from './tls.ts';

/** A destination that has every page says so in no time; one that waits for pages that do not come may not have noticed: longest wait, ms. */
const WHOLE_MS = 5_000;
const POLL_MS = 100;

export interface RestoreOptions extends Pick<DriveOptions, 'signal' | 'progress'> {
  readonly file: string;
  /** QMP socket of a process in `-incoming defer`, with the same machine. */
  readonly qmp: string;
  /** Where it shall listen; default a private unix socket. */
  readonly uri?: string | undefined;
  /** The guest is paused when it arrives, whatever it did when it was saved. */
  readonly paused: boolean;
  /** The guest goes on at once, its memory follows as it is wanted; over another connection if the first breaks. */
  readonly postcopy?: boolean | undefined;
  /** Something happened on the way that people may want to know. */
  readonly notice?: (text: string) => void;
  /** For the migration; max-bandwidth is unlimited unless given. */
  readonly settings: Assignments;
  /** With TLS: this side is the client, the process the server. */
  readonly tls?: TlsChoice | undefined;
}

/** Puts the machine of a checkpoint into a process, where it goes on. Throws before anything is sent if the two do not fit. */
export async function restore(options: RestoreOptions): Promise<Outcome> {
  const directIo = options.settings.parameters['direct-io'] === true;
  const reader = await CheckpointReader.open(options.file, { directIo, paused: options.paused });
  try {
    const destination = await Peer.connect(options.qmp, options.signal);
    try {
      await destination.expectWaiting();
      await expectMachine(destination, reader.machineType);
      const { uri } = options;
      if (uri !== undefined) return await restoreOver(() => uri, reader, destination, options);
      return await withPrivateSocket((path) => {
        let sockets = 0;
        return restoreOver(() => `unix:${path}.${sockets++}`, reader, destination, options);
      });
    } finally {
      destination.close();
    }
  } finally {
    await reader.close();
  }
}

async function restoreOver(
  nextUri: () => string,
  machine: SourceMachine,
  destination: Peer,
  options: RestoreOptions,
): Promise<Outcome> {
  const { signal, progress, postcopy, notice } = options;
  const settings = new Settings();
  settings.setCapabilities(options.settings.capabilities);
  const { objects, parameters } = ownTls(options.tls, 'client');
  settings.setParameters({ 'max-bandwidth': 0, ...options.settings.parameters, ...parameters });
  const theirs = assignmentsFor('destination', options.settings);
  const plain = await plainStream(destination);
  const tls = await peerTls(destination, options.tls, 'server', theirs.parameters);
  const undo = await applySettings(destination, {
    capabilities: [...plain.capabilities, ...theirs.capabilities],
    parameters: { ...plain.parameters, ...tls.parameters, ...theirs.parameters },
  }).catch(async (error: unknown) => {
    await tls.undo();
    throw error;
  });
  try {
    const uri = nextUri();
    await listenThere(destination, uri);
    const target = await reachable(destination, uri);
    let driver: PostcopyDriver | undefined;
    const drive = (source: SendingEnd) => {
      driver = new PostcopyDriver({ notice }, { source, destination, nextUri, signal });
      return driver;
    };
    const how = { settings, objects, signal, progress, ...(postcopy === true && { postcopy, driver: drive }) };
    const sent = await sendMachine(machine, { uri: target, ...how });
    const error = driver?.failure ?? sent.error;
    return await settled(destination, { ...sent, ...(error && { error }) });
  } finally {
    await undo()
      .then(tls.undo)
      .catch(() => {});
  }
}

/** The destination has the last word: it runs the guest or it does not. */
async function settled(destination: Peer, sent: Outcome): Promise<Outcome> {
  const unconfirmed = sent.error instanceof FerryError && sent.error.code === 'MIGRATION_UNCONFIRMED';
  const state = sent.status === 'completed' || unconfirmed ? await arrival(destination) : await destination.state();
  const { error, ...figures } = sent;
  if (hasArrived(state) && (error === undefined || (await isWhole(destination)))) {
    return { ...figures, status: 'completed', destination: state, message: `The guest is ${state}.` };
  }
  const cause =
    error ??
    new PorcelainError(
      { code: 'SIDES_DISAGREE', source: 'completed', destination: state },
      `${destination.path}: everything was sent, but the destination is ${state}`,
    );
  if (hasArrived(state)) {
    const message =
      `The guest is ${state} on the destination without the part of its memory that had not been sent, and stops where it needs that. The ` +
      'checkpoint is as it was: end that process, and restore it into another one.';
    return { ...figures, status: 'failed', error: cause, destination: state, message };
  }
  return {
    ...figures,
    status: sent.status === 'cancelled' ? 'cancelled' : 'failed',
    error: await withReasonOf(destination, state, cause),
    destination: await destination.state(),
    message:
      'The guest does not run; the checkpoint is as it was.' +
      (state === GONE ? ' The destination process has ended: its log may say why.' : ''),
  };
}

/** Whether a guest that is there has all of its memory: one that went on at once may lack it for ever. */
async function isWhole(destination: Peer): Promise<boolean> {
  const endMs = performance.now() + WHOLE_MS;
  for (;;) {
    const info = await destination.execute('query-migrate').catch(() => undefined);
    if (info === undefined || info.status === 'postcopy-paused') return false;
    if (info.status?.startsWith('postcopy-') !== true) return true;
    if (performance.now() > endMs) return false;
    await pause(POLL_MS);
  }
}

/** A QEMU says in its log only that the machine types differ, and ends: better to see it before. Throws PEER_MACHINE. */
async function expectMachine(destination: Peer, expected: string): Promise<void> {
  const found = await machineTypeOf(destination);
  if (found === undefined || found === expected) return;
  throw new PorcelainError(
    { code: 'PEER_MACHINE', peer: destination.path, expected, found },
    `${destination.path}: the checkpoint holds a machine of type ${expected}, but this process has ${found}: start it with -machine ${expected}`,
  );
}
