/**
 * Stopping and starting all devices of a machine. With P2P no device stops while another may still write to it: first all of them become
 * quiet (no DMA of their own), then all stop; starting goes the same way back. A device without P2P has only the second step.
 */
import { nowMs } from '../../base/index.ts';
import type { TransitionOptions } from '../device.ts';
import { ERRNO, isVfioError, vfioError } from '../errors.ts';
import type { DeviceState } from '../states.ts';
import { DEADLINE_MARGIN_MS } from '../transitions.ts';
import type { GuardedDevice } from './guarded-device.ts';

/** Where a device that is to be stopped goes: STOP_COPY if its saving session shall go on, or begin. */
export type StopTarget = 'STOP' | 'STOP_COPY';

export interface Stopping {
  readonly device: GuardedDevice;
  readonly target: StopTarget;
}

/** When stopping must be over, monotonic ms, and what its second step takes; devices that take no deadlines are not held to it. */
export interface StopDeadline {
  readonly untilMs: number;
  readonly restMs: number;
}

/** Throws the first failure after all have ended: some devices may be stopped then, and others not. */
export async function stopDevices(devices: readonly Stopping[], deadline?: StopDeadline): Promise<void> {
  await together(devices, async ({ device }) => {
    if (!device.features.states.p2p) return;
    const state = await device.state();
    const by = () => until(device, deadline && deadline.untilMs - deadline.restMs);
    if (state === 'RUNNING') await device.setState('RUNNING_P2P', by());
    else if (state === 'PRE_COPY') await device.setState('PRE_COPY_P2P', by());
  });
  // From here on some have no way back: nobody begins what cannot be ended.
  if (deadline !== undefined && nowMs() + deadline.restMs > deadline.untilMs) {
    throw tooLate(deadline.restMs, deadline.untilMs - nowMs());
  }
  await together(devices, async ({ device, target }) => {
    const state = await device.state();
    // What is stopped already keeps its session.
    if (state === 'STOP_COPY' || state === 'RESUMING') return;
    await device.setState(stoppedState(state, target), until(device, deadline?.untilMs));
  });
}

/** All devices together cannot be through in time. */
export function tooLate(neededMs: number, deadlineMs: number): Error {
  const fault = { code: 'VFIO_DEADLINE_REFUSED', device: '', errno: ERRNO.ETIME, deadlineMs, neededMs } as const;
  return vfioError(fault, `devices need ${neededMs.toFixed(1)} ms to stop, and have ${deadlineMs.toFixed(1)} ms`);
}

function stoppedState(state: DeviceState, target: StopTarget): DeviceState {
  return state === 'PRE_COPY' || state === 'PRE_COPY_P2P' ? 'STOP_COPY' : target;
}

function until(device: GuardedDevice, moment: number | undefined): TransitionOptions {
  if (moment === undefined || !device.features.deadlines) return {};
  return { deadlineMs: Math.max(1, moment - nowMs()) };
}

/** What the two steps take, as devices know themselves, with the margin that they want for a promise, ms; 0 for one that does not know. */
export async function stopEstimate(devices: readonly Stopping[]): Promise<{ quietMs: number; restMs: number }> {
  let quietMs = 0;
  let restMs = 0;
  await together(devices, async ({ device, target }) => {
    const state = await device.state();
    if (state === 'STOP' || state === 'STOP_COPY') return;
    const wholeMs = (await device.estimate(stoppedState(state, target))) ?? 0;
    const quiet = state === 'PRE_COPY' ? 'PRE_COPY_P2P' : 'RUNNING_P2P';
    const firstMs = device.features.states.p2p ? ((await device.estimate(quiet)) ?? 0) : 0;
    const margin = device.features.deadlines ? DEADLINE_MARGIN_MS : 0;
    if (device.features.states.p2p) quietMs = Math.max(quietMs, firstMs + margin);
    restMs = Math.max(restMs, wholeMs - firstMs + margin);
  });
  return { quietMs, restMs };
}

/** A device has said that it cannot be through in time, or that it was not: it is where it was. */
export function isLate(thrown: unknown): boolean {
  return (
    isVfioError(thrown) &&
    (thrown.fault.code === 'VFIO_DEADLINE_REFUSED' || thrown.fault.code === 'VFIO_DEADLINE_MISSED')
  );
}

/**
 * Devices of which some were stopped and others were late run again as before, saving sessions that had begun included. Returns those that cannot: the
 * session of a device that has come to STOP_COPY leads nowhere else. They are left stopped; `keeps`: the device has a session to lose.
 */
export async function unstopDevices(
  devices: readonly (Stopping & { readonly keeps: boolean })[],
): Promise<readonly GuardedDevice[]> {
  const stuck: GuardedDevice[] = [];
  await together(devices, async ({ device, keeps }) => {
    if (keeps && (await device.state()) === 'STOP_COPY') stuck.push(device);
  });
  if (stuck.length > 0) return stuck;
  await together(devices, async ({ device }) => {
    const state = await device.state();
    if ((state === 'STOP' || state === 'STOP_COPY') && device.features.states.p2p) await device.setState('RUNNING_P2P');
  });
  await together(devices, async ({ device }) => {
    const state = await device.state();
    await device.setState(state === 'PRE_COPY' || state === 'PRE_COPY_P2P' ? 'PRE_COPY' : 'RUNNING');
  });
  return [];
}

/** Where a device goes from its saving session, so that it does what it did in it: its peers may still write to it, or not. */
export const AFTER_SAVING: Readonly<Partial<Record<DeviceState, DeviceState>>> = {
  PRE_COPY: 'RUNNING',
  PRE_COPY_P2P: 'RUNNING_P2P',
  STOP_COPY: 'STOP',
};

/** Devices run as if they had never been stopped; sessions end. `bring` takes one of them to a state. */
export async function startDevices(
  devices: readonly GuardedDevice[],
  bring: (device: GuardedDevice, target: DeviceState) => Promise<unknown>,
): Promise<void> {
  const quiet = devices.filter(({ features }) => features.states.p2p);
  await together(quiet, (device) => bring(device, 'RUNNING_P2P'));
  await together(devices, (device) => bring(device, 'RUNNING'));
}

/** All at the same time; ends when all have, and throws what failed first; what is not being late goes before what is. */
export async function together<T>(all: readonly T[], act: (one: T) => Promise<unknown>): Promise<void> {
  const results = await Promise.allSettled(all.map(act));
  const reasons = results.flatMap((result) => (result.status === 'rejected' ? [result.reason] : []));
  if (reasons.length > 0) throw reasons.find((reason) => !isLate(reason)) ?? reasons[0];
}
