/**
 * How a device walks from state to state: arc by arc along the computed path, complete when it returns. Shared by all devices that
 * run in a process of ours; what an arc does is the device's own.
 *
 *     without a deadline   an arc that fails leaves the device in the state before it, or in ERROR if it says so
 *     with a deadline      all or nothing: if it cannot be through in time, or an arc fails, everything is undone before the deadline
 *
 * An arc is given the moment by which it must be over. It keeps what undoing the arcs before it takes in hand, so that a device that
 * is late still gets back in time.
 */
import { asError } from '../base/index.ts';
import type { ArcLatency } from './device.ts';
import { ERRNO, errnoName, operationFailed, type VfioError, vfioError } from './errors.ts';
import { type Arc, type DeviceState, pathBetween, type StateOptions } from './states.ts';

/** Takes back what an arc has done, within the time that `undoMs` promised for it. */
export type UndoArc = () => Promise<void>;

/** What a device does on an arc. The state itself is kept by DeviceTransitions. */
export interface ArcWork {
  /** ms that the arc takes now. */
  costMs(arc: Arc): number;
  /** ms that undoing it takes. */
  undoMs(arc: Arc): number;
  /**
   * Settles by `until` (ms of the clock; Infinity: whenever). Rejects with ArcFailure; the device is then as it was before the arc, or
   * broken.
   */
  work(arc: Arc, until: number): Promise<UndoArc>;
}

export type ArcFailureKind =
  /** As it was before the arc. */
  | 'unchanged'
  /** No valid state could be restored: ERROR. */
  | 'broken'
  /** As it was before the arc, which would have taken longer than `until`. */
  | 'out of time';

export class ArcFailure extends Error {
  readonly kind: ArcFailureKind;
  readonly errno: number;

  constructor(kind: ArcFailureKind, errno: number, message: string) {
    super(message);
    this.kind = kind;
    this.errno = errno;
  }
}

/** Timers and other threads may be this late, ms; a promise is made only if it holds in spite of that. */
export const DEADLINE_MARGIN_MS = 3;

export interface TransitionsOptions {
  /** For messages. */
  readonly name: string;
  readonly states: StateOptions;
  /** Whether it takes deadlines. */
  readonly deadlines: boolean;
  readonly work: ArcWork;
  /** Monotonic ms. */
  readonly now: () => number;
}

interface DoneArc {
  readonly arc: Arc;
  readonly undo: UndoArc;
}

export class DeviceTransitions {
  readonly #options: TransitionsOptions;
  #state: DeviceState = 'RUNNING';

  constructor(options: TransitionsOptions) {
    this.#options = options;
  }

  get state(): DeviceState {
    return this.#state;
  }

  /** A reset has been done: the device runs, whatever it was. */
  wasReset(): void {
    this.#state = 'RUNNING';
  }

  /** The device failed outside of a transition. */
  broke(): void {
    this.#state = 'ERROR';
  }

  /** ms from here to `target`; undefined if there is no way. */
  estimate(target: DeviceState): number | undefined {
    const path = pathBetween(this.#options.states, this.#state, target);
    return path && this.#costOf(path);
  }

  /** One call at a time. Throws as VfioDevice.setState. */
  async setState(target: DeviceState, deadlineMs?: number): Promise<readonly ArcLatency[]> {
    const { name, now, states } = this.#options;
    const from = this.#state;
    const path = pathBetween(states, from, target);
    if (path === undefined) {
      const fault = { code: 'VFIO_NO_PATH', device: name, errno: ERRNO.EINVAL, from, to: target } as const;
      throw vfioError(fault, `${name}: there is no way from ${from} to ${target}`);
    }
    if (deadlineMs !== undefined) this.#promise(path, target, deadlineMs);
    const until = deadlineMs === undefined ? Number.POSITIVE_INFINITY : now() + deadlineMs - DEADLINE_MARGIN_MS;
    const done: DoneArc[] = [];
    const latencies: ArcLatency[] = [];
    for (const [index, arc] of path.entries()) {
      const startMs = now();
      try {
        const undo = await this.#options.work.work(arc, until - this.#undoMs(path.slice(0, index + 1), path));
        done.push({ arc, undo });
      } catch (thrown) {
        throw await this.#failed(arc, failureOf(thrown), deadlineMs, done);
      }
      this.#state = arc.to;
      latencies.push({ ...arc, ms: now() - startMs });
    }
    return latencies;
  }

  /** Refuses a deadline that cannot be kept, the way back included. */
  #promise(path: readonly Arc[], target: DeviceState, deadlineMs: number): void {
    const { name, deadlines } = this.#options;
    if (!deadlines) throw operationFailed(name, 'set state', ERRNO.EOPNOTSUPP, 'it takes no deadlines');
    if (path.length === 0) return;
    const neededMs = this.#costOf(path) + this.#undoMs(path, path) + DEADLINE_MARGIN_MS;
    if (neededMs <= deadlineMs) return;
    throw vfioError(
      { code: 'VFIO_DEADLINE_REFUSED', device: name, errno: ERRNO.ETIME, deadlineMs, neededMs },
      `${name}: ${this.#state} -> ${target} within ${deadlineMs} ms: it needs ${neededMs.toFixed(1)} ms to promise that`,
    );
  }

  async #failed(
    arc: Arc,
    failure: ArcFailure,
    deadlineMs: number | undefined,
    done: readonly DoneArc[],
  ): Promise<VfioError> {
    const { name } = this.#options;
    if (failure.kind === 'broken') this.#state = 'ERROR';
    else if (deadlineMs !== undefined) await this.#undo(done);
    const { kind, errno, message } = failure;
    const state = this.#state;
    if (kind === 'out of time' && deadlineMs !== undefined && state !== 'ERROR') {
      const fault = { code: 'VFIO_DEADLINE_MISSED', device: name, errno: ERRNO.ETIMEDOUT, deadlineMs, state } as const;
      return vfioError(
        fault,
        `${name}: ${arc.from} -> ${arc.to} was not through in time; it is back in ${state}`,
        failure,
      );
    }
    return vfioError(
      { code: 'VFIO_ARC_FAILED', device: name, errno, ...arc, state },
      `${name}: ${arc.from} -> ${arc.to}: ${message} (${errnoName(errno)}); it is in ${state}`,
      failure,
    );
  }

  /** Back along the arcs that were done. One that cannot be undone leaves no valid state. */
  async #undo(done: readonly DoneArc[]): Promise<void> {
    for (const { arc, undo } of done.toReversed()) {
      try {
        await undo();
      } catch {
        this.#state = 'ERROR';
        return;
      }
      this.#state = arc.from;
    }
  }

  #costOf(path: readonly Arc[]): number {
    return path.reduce((sum, arc) => sum + this.#options.work.costMs(arc), 0);
  }

  /** Time to keep for undoing these first arcs of the path. The last one of all is never undone: with it the device is through. */
  #undoMs(arcs: readonly Arc[], path: readonly Arc[]): number {
    return arcs.reduce((sum, arc) => (arc === path.at(-1) ? sum : sum + this.#options.work.undoMs(arc)), 0);
  }
}

function failureOf(thrown: unknown): ArcFailure {
  if (thrown instanceof ArcFailure) return thrown;
  // A mistake of ours inside an arc: nobody knows what the device is like.
  return new ArcFailure('broken', ERRNO.EIO, asError(thrown).message);
}
