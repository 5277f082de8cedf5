/**
 * What to do when the source says that a migration has not completed. A driver sees both ends, so it can settle what the protocol
 * leaves open; the one rule is that the guest may run on at most one side, and that nothing is done on a guess.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { explain, unreachable } from '../base/index.ts';
import { withReasonOf } from './destination.ts';
import { PorcelainError } from './errors.ts';
import { figuresOf, GONE, type GuestState, type MigrationFigures, type Outcome, UNKNOWN } from './outcome.ts';
import { hasArrived, isLive, type Peer } from './peer.ts';

/** Time for a destination to finish or give up once its source has ended, ms. */
const DECIDE_MS = 15_000;
const POLL_MS = 100;

export type Verdict =
  /** The guest is where it was. */
  | 'stays'
  /** Handed over, and the destination has it: the migration did complete. */
  | 'arrived'
  /** Handed over, but the destination certainly does not run it: it may run on the source again. */
  | 'take-back'
  /** Both run: the source goes on, the destination is stopped. */
  | 'both-run'
  /** The source process is gone and the destination does not have the guest. */
  | 'lost'
  /** Nobody can tell from here. */
  | 'open';

/** States in which a source that has handed over waits for a word; from others (paused, io-error ...) it was not the migration that stopped it. */
const HANDED_OVER: ReadonlySet<GuestState> = new Set(['finish-migrate', 'postmigrate']);

/** `destination` is undefined if it cannot be asked; `inmigrate` there means that its migration has failed or not begun. Pure. */
export function judge(source: GuestState, destination: GuestState | undefined): Verdict {
  const arrived = destination !== undefined && hasArrived(destination);
  if (isLive(source)) return isLive(destination) ? 'both-run' : 'stays';
  if (source === UNKNOWN) return arrived ? 'arrived' : 'open';
  if (source === GONE)
    return arrived ? 'arrived' : destination === undefined || destination === UNKNOWN ? 'open' : 'lost';
  if (!HANDED_OVER.has(source)) return isLive(destination) ? 'arrived' : 'stays';
  if (arrived) return 'arrived';
  return destination === undefined || destination === UNKNOWN ? 'open' : 'take-back';
}

export interface Settling {
  readonly source: Peer;
  readonly destination: Peer | undefined;
  /** Whether the guest was at work before the migration: only then is it set to work again. */
  readonly wasLive: boolean;
  /** The last reply of query-migrate on the source, if there is one. */
  readonly figures: MigrationFigures;
  readonly error: Error;
}

export async function settle(settling: Settling): Promise<Outcome> {
  const { source, destination, wasLive, figures } = settling;
  const sourceState = await source.state();
  const destinationState = destination && (await decided(destination, isLive(sourceState)));
  const base = {
    ...figuresOf(figures),
    source: sourceState,
    ...(destinationState === undefined ? {} : { destination: destinationState }),
  };
  const error = await withReasonOf(destination, destinationState, settling.error);
  const failed = { ...base, status: figures.status === 'cancelled' ? 'cancelled' : 'failed', error } as const;
  const verdict = judge(sourceState, destinationState);
  switch (verdict) {
    case 'stays':
      return { ...failed, message: whereItStays(sourceState) };
    case 'arrived':
      return {
        ...base,
        status: 'completed',
        message: `The source did not hear of it (${explain(error)}), but the guest has arrived: it is ${destinationState} on the destination.`,
      };
    case 'take-back':
      if (!wasLive)
        return { ...failed, message: `The destination does not have the guest. ${whereItStays(sourceState)}` };
      return { ...failed, ...(await takeBack(source, 'The destination does not have the guest')) };
    case 'both-run':
      return {
        ...failed,
        ...(await stopCopy(destination as Peer)),
        error: new PorcelainError(
          { code: 'SIDES_DISAGREE', source: sourceState, destination: destinationState ?? UNKNOWN },
          'the source took its guest back though the destination had started it',
          error,
        ),
      };
    case 'lost':
      return { ...failed, message: 'The source process is gone and the destination does not have the guest.' };
    case 'open':
      return {
        ...failed,
        message:
          'The guest may run on the destination, which cannot be asked from here, so nothing was changed. If it does not run there, ' +
          `end the destination process and let it run on the source with the QMP command 'cont' (the source is ${sourceState}).`,
      };
    default:
      return unreachable(verdict);
  }
}

/** Sets the guest to work on the source again; `because` it does so nowhere else. A guest that slept sleeps on. */
export async function takeBack(source: Peer, because: string): Promise<Pick<Outcome, 'source' | 'message'>> {
  try {
    await source.execute('cont');
    const state = await source.state();
    return { source: state, message: `${because}: it is ${state} on the source again.` };
  } catch (thrown) {
    const message = `${because}, but the source cannot let it run again: ${explain(thrown)}.`;
    return { source: await source.state(), message };
  }
}

async function stopCopy(destination: Peer): Promise<Pick<Outcome, 'destination' | 'message'>> {
  try {
    await destination.execute('stop');
    const message = 'The guest runs on the source; the copy on the destination was stopped at once. End that process.';
    return { destination: await destination.state(), message };
  } catch (thrown) {
    const message = `THE GUEST RUNS ON BOTH SIDES: the destination could not be stopped (${explain(thrown)}). End one of them now.`;
    return { destination: await destination.state(), message };
  }
}

export function whereItStays(state: GuestState): string {
  if (state === 'running') return 'The guest still runs on the source.';
  return `The guest is still on the source, ${state}.`;
}

/** The destination's state once it has finished or given up; UNKNOWN if it does neither in time. */
async function decided(destination: Peer, sourceIsLive: boolean): Promise<GuestState> {
  const deadline = performance.now() + DECIDE_MS;
  for (;;) {
    const state = await destination.state();
    if (state !== 'inmigrate') return state;
    const status = await destination.execute('query-migrate').then(
      (info) => info.status ?? 'none',
      () => UNKNOWN,
    );
    // With a source that goes on, one that still waits for its first byte has nothing to decide.
    if (status === 'failed' || (sourceIsLive && status !== 'active')) return state;
    if (performance.now() > deadline) return UNKNOWN;
    await pause(POLL_MS);
  }
}
