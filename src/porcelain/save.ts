import { rm } from 'node:fs/promises';
import { FerryError } from '../base/index.ts';
import { type Assignments, Settings } from '../settings/index.ts';
import { type DriveOptions, driveSource, failureOf } from './drive.ts';
import { PorcelainError } from './errors.ts';
import { figuresOf, type Outcome } from './outcome.ts';
import { Peer } from './peer.ts';
import { applySettings } from './peer-settings.ts';
import { plainStream } from './plain.ts';
import { withPrivateSocket } from './private-socket.ts';
import { type ReceiveOptions, receive } from './receive.ts';
import { judge, takeBack, whereItStays } from './settle.ts';
import { assignmentsFor } from './sides.ts';
import { ownTls, peerTls, type TlsChoice } from './tls.ts';

export interface SaveOptions extends Pick<DriveOptions, 'signal' | 'progress'> {
  /** QMP socket of the process that has the machine. */
  readonly qmp: string;
  readonly file: string;
  /** Where to listen for it; default a private unix socket. tcp:127.0.0.1:0 for a process that may not enter our folder. */
  readonly uri?: string | undefined;
  /** Let the guest run on once it is saved. */
  readonly resume: boolean;
  /** For the migration; max-bandwidth is unlimited unless given. What the process had before is put back. */
  readonly settings: Assignments;
  /** With TLS: this side is the server, the process the client. */
  readonly tls?: TlsChoice | undefined;
}

/**
 * Takes the machine of a process into a checkpoint. Completed only if both ends say so; then the guest is stopped (or runs on), else it
 * runs on and there is no file. Throws only before the guest is touched.
 */
export async function save(options: SaveOptions): Promise<Outcome> {
  const source = await Peer.connect(options.qmp, options.signal);
  try {
    if (options.uri !== undefined) return await saveOver(options.uri, source, options);
    return await withPrivateSocket((path) => saveOver(`unix:${path}`, source, options));
  } finally {
    source.close();
  }
}

async function saveOver(uri: string, source: Peer, options: SaveOptions): Promise<Outcome> {
  const wasLive = await source.expectGuest('save');
  const own = new Settings();
  own.setCapabilities(options.settings.capabilities);
  const { objects, parameters: ownParameters } = ownTls(options.tls, 'server');
  own.setParameters({ ...options.settings.parameters, ...ownParameters });
  const { capabilities, parameters } = assignmentsFor('source', options.settings);
  const plain = await plainStream(source);
  const tls = await peerTls(source, options.tls, 'client', parameters);
  const undo = await applySettings(source, {
    capabilities: [...plain.capabilities, { capability: 'return-path', state: true }, ...capabilities],
    parameters: { ...plain.parameters, 'max-bandwidth': 0, ...tls.parameters, ...parameters },
  }).catch(async (error: unknown) => {
    await tls.undo();
    throw error;
  });
  try {
    return await transfer(uri, source, { settings: own, objects }, wasLive, options);
  } finally {
    // The process may be gone; then there is nothing to put back.
    await undo()
      .then(tls.undo)
      .catch(() => {});
  }
}

async function transfer(
  uri: string,
  source: Peer,
  own: Pick<ReceiveOptions, 'settings' | 'objects'>,
  wasLive: boolean,
  options: SaveOptions,
) {
  const stop = new AbortController();
  let listening: (uri: string) => void = () => {};
  const address = new Promise<string>((resolve) => {
    listening = resolve;
  });
  const receiving = receive({ uri, file: options.file, ...own, signal: stop.signal, listening });
  const [driven] = await Promise.allSettled([
    Promise.race([address, receiving.then(() => address)]).then((target) =>
      driveSource(source, { uri: target, signal: options.signal, progress: options.progress }),
    ),
  ]);
  const failure = failureOf(source, driven);
  if (failure !== undefined) stop.abort(failure);
  const received = await receiving;
  const figures = driven.status === 'fulfilled' ? figuresOf(driven.value) : {};
  if (failure === undefined && received.status === 'completed') return saved(source, figures, wasLive, options);
  if (received.status === 'completed') await rm(options.file, { force: true });
  const cancelled = driven.status === 'fulfilled' && driven.value.status === 'cancelled';
  const error = received.status === 'failed' && !onlyFollows(received.error) ? received.error : failure;
  const { message, ...guest } = await whereItIs(source, wasLive);
  return {
    ...figures,
    status: cancelled ? 'cancelled' : 'failed',
    error:
      error ??
      new PorcelainError(
        { code: 'SIDES_DISAGREE', source: 'completed', destination: 'failed' },
        'the checkpoint was not finished',
      ),
    ...guest,
    message: `${message} ${options.file} was not written.`,
  } satisfies Outcome;
}

async function saved(
  source: Peer,
  figures: Partial<Outcome>,
  wasLive: boolean,
  options: SaveOptions,
): Promise<Outcome> {
  const resume = options.resume && wasLive;
  if (resume) await source.execute('cont');
  const state = await source.state();
  const guest = resume ? `The guest goes on (${state}).` : 'The guest is stopped where it was saved.';
  return { ...figures, status: 'completed', source: state, message: `The machine is in ${options.file}. ${guest}` };
}

/** Whether the receiver merely saw the source end. */
function onlyFollows(error: Error | undefined): boolean {
  return error instanceof FerryError && /^(TRANSPORT_|WIRE_TRUNCATED)/.test(error.code);
}

/** A checkpoint never runs, so a source that waits for a word after handing over may always have its guest back. */
async function whereItIs(source: Peer, wasLive: boolean): Promise<Pick<Outcome, 'source' | 'message'>> {
  const state = await source.state();
  if (!wasLive || judge(state, 'inmigrate') !== 'take-back') return { source: state, message: whereItStays(state) };
  return takeBack(source, 'The guest stood still for the save');
}
