/**
 * The guest stops: vCPUs first, then all devices (running.ts). Devices that take deadlines are held to the one that they are given; one that is late
 * runs on, and all others and the guest with it.
 */
import { asError, explain, nowMs } from '../../base/index.ts';
import type { RunState, SourceMachine } from '../../machine/index.ts';
import { ERRNO, operationFailed } from '../errors.ts';
import type { GuardedDevice } from './guarded-device.ts';
import type { OutgoingDevice } from './outgoing-device.ts';
import {
  isLate,
  type StopDeadline,
  type Stopping,
  stopDevices,
  stopEstimate,
  tooLate,
  unstopDevices,
} from './running.ts';
import type { Slot } from './slot.ts';

interface StoppingSlot extends Stopping {
  readonly outgoing: OutgoingDevice;
}

export class GuestStop {
  readonly #host: Pick<SourceMachine, 'stop' | 'resume'>;
  readonly #slots: readonly Slot[];

  /** `host`: the machine without its devices. */
  constructor(host: Pick<SourceMachine, 'stop' | 'resume'>, slots: readonly Slot[]) {
    this.#host = host;
    this.#slots = slots;
  }

  /** What both steps of stopping take, as far as devices know, ms. */
  estimate(): Promise<{ readonly quietMs: number; readonly restMs: number }> {
    return stopEstimate(this.#stopping());
  }

  async stop(state: RunState, deadline?: StopDeadline): Promise<void> {
    const stopping = this.#stopping();
    for (const { outgoing } of stopping) outgoing.stopping();
    await this.#host.stop(state);
    await stopDevices(stopping, deadline);
    for (const { outgoing } of stopping) outgoing.stopped();
  }

  /**
   * Returns who was late; the guest runs then. If some of the devices that have stopped have no way back, the late one is given as
   * much time once more: a promise that is broken by so much is better than a migration that is lost.
   */
  async stopWithin(state: RunState, deadlineMs: number): Promise<Error | undefined> {
    const untilMs = nowMs() + deadlineMs;
    const { quietMs, restMs } = await this.estimate();
    if (quietMs + restMs > deadlineMs) return tooLate(quietMs + restMs, deadlineMs);
    try {
      await this.stop(state, { untilMs, restMs });
      return undefined;
    } catch (error) {
      if (!isLate(error)) throw error;
      const stopping = this.#stopping();
      const stuck = await unstopDevices(stopping.map((one) => ({ ...one, keeps: one.outgoing.keepsSession })));
      if (stuck.length > 0) {
        await this.#stopRest(stopping, nowMs() + deadlineMs, stuck);
        return undefined;
      }
      for (const { outgoing } of stopping) outgoing.notStopped();
      await this.#host.resume();
      return asError(error);
    }
  }

  async #stopRest(stopping: readonly StoppingSlot[], untilMs: number, stuck: readonly GuardedDevice[]): Promise<void> {
    try {
      await stopDevices(stopping, { untilMs, restMs: 0 });
    } catch (error) {
      if (!isLate(error)) throw error;
      const names = stuck.map(({ name }) => name).join(', ');
      const why = `it had stopped when another device was late, and what it has begun to save has no way back: ${explain(error)}`;
      throw operationFailed(names, 'set state', ERRNO.ETIMEDOUT, why);
    }
    for (const { outgoing } of stopping) outgoing.stopped();
  }

  #stopping(): readonly StoppingSlot[] {
    return this.#slots
      .filter(({ device }) => !device.lost)
      .map(({ device, outgoing }) => ({ device, outgoing, target: outgoing.stopTarget }));
  }
}
