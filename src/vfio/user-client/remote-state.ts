/** The state of a device behind a server: known here without asking, as nobody else moves it, and the ways to move it. */
import { nowMs } from '../../base/index.ts';
import type { ArcLatency, DeviceFeatures } from '../device.ts';
import { ERRNO, operationFailed, vfioError } from '../errors.ts';
import { type Arc, type DeviceState, pathBetween } from '../states.ts';
import { type Link, refusedErrno } from '../user-link/link.ts';
import type { ClientTimeouts } from './connect.ts';
import { askDeviceState, setDeviceState } from './features.ts';

/** Time of a deadline that asking and answering may take, ms. */
const MESSAGES_MS = 3;

export interface RemoteStateOptions {
  readonly device: string;
  readonly link: Link;
  readonly timeouts: ClientTimeouts;
  readonly features: DeviceFeatures;
  /** False: it has no states. */
  readonly migratable: boolean;
  readonly state: DeviceState;
}

/** Throws as VfioDevice.setState; what ends the link as it is. */
export class RemoteState {
  readonly #options: RemoteStateOptions;
  #state: DeviceState;

  constructor(options: RemoteStateOptions) {
    this.#options = options;
    this.#state = options.state;
  }

  /** As it was when we last moved it or asked. */
  get known(): DeviceState {
    return this.#state;
  }

  async ask(): Promise<DeviceState> {
    this.#state = await askDeviceState(this.#options.link, this.#options.timeouts.commandMs);
    return this.#state;
  }

  /** Arc by arc, so that each has its time and a failure its place. */
  async walk(target: DeviceState): Promise<readonly ArcLatency[]> {
    const latencies: ArcLatency[] = [];
    for (const arc of this.#path(target)) {
      const startMs = nowMs();
      await this.#take(arc);
      latencies.push({ ...arc, ms: nowMs() - startMs });
    }
    return latencies;
  }

  /** The device walks by itself, so that it can go back. `untilMs`: of our clock; what the messages take is kept in hand. */
  async walkUntil(target: DeviceState, deadlineMs: number, untilMs: number): Promise<readonly ArcLatency[]> {
    const { device, features, link, timeouts } = this.#options;
    const from = this.#state;
    if (this.#path(target).length === 0) return [];
    if (!features.deadlines) throw operationFailed(device, 'set state', ERRNO.EOPNOTSUPP, 'it takes no deadlines');
    const startMs = nowMs();
    const leftMs = Math.floor(untilMs - startMs - MESSAGES_MS);
    if (leftMs <= 0) throw this.#refused(target, deadlineMs, 'over before it is asked');
    try {
      await setDeviceState(link, target, timeouts.deviceMs, leftMs);
    } catch (error) {
      const errno = refusedErrno(error);
      if (errno === undefined) throw error;
      if (errno === ERRNO.ETIME) throw this.#refused(target, deadlineMs, 'not promised', error);
      const state = await this.ask();
      const message = `${device}: ${from} -> ${target} within ${deadlineMs} ms failed, it is in ${state}`;
      if (errno === ERRNO.ETIMEDOUT && state === from) {
        throw vfioError({ code: 'VFIO_DEADLINE_MISSED', device, errno, deadlineMs, state }, message, error);
      }
      throw vfioError({ code: 'VFIO_ARC_FAILED', device, errno, from, to: target, state }, message, error);
    }
    this.#state = target;
    return [{ from, to: target, ms: nowMs() - startMs }];
  }

  #path(target: DeviceState): readonly Arc[] {
    const { device, features, migratable } = this.#options;
    const from = this.#state;
    const path = pathBetween(features.states, from, target);
    if (path !== undefined && migratable) return path;
    const fault = { code: 'VFIO_NO_PATH', device, errno: ERRNO.EINVAL, from, to: target } as const;
    throw vfioError(fault, `${device}: there is no way from ${from} to ${target}`);
  }

  async #take(arc: Arc): Promise<void> {
    const { device, link, timeouts } = this.#options;
    try {
      await setDeviceState(link, arc.to, timeouts.deviceMs);
      this.#state = arc.to;
    } catch (error) {
      const errno = refusedErrno(error);
      if (errno === undefined) throw error;
      const state = await this.ask();
      const message = `${device}: ${arc.from} -> ${arc.to} failed, it is in ${state}`;
      throw vfioError({ code: 'VFIO_ARC_FAILED', device, errno, ...arc, state }, message, error);
    }
  }

  #refused(target: DeviceState, deadlineMs: number, why: string, cause?: unknown): Error {
    const { device } = this.#options;
    const fault = {
      code: 'VFIO_DEADLINE_REFUSED',
      device,
      errno: ERRNO.ETIME,
      deadlineMs,
      neededMs: undefined,
    } as const;
    return vfioError(fault, `${device}: ${this.#state} -> ${target} within ${deadlineMs} ms: ${why}`, cause);
  }
}
