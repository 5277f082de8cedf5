/**
 * Stopping and starting all devices of a machine. With P2P no device stops while another may still write to it: first all of them become
 * quiet (no DMA of their own), then all stop; starting goes the same way back. A device without P2P has only the second step.
 */
import type { DeviceState } from '../states.ts';
import type { GuardedDevice } from './guarded-device.ts';

/** Where a device that is to be stopped goes: STOP_COPY if its saving session shall go on, or begin. */
export type StopTarget = 'STOP' | 'STOP_COPY';

/** Throws the first failure after all have ended: some devices may be stopped then, and others not. */
export async function stopDevices(devices: readonly { readonly device: GuardedDevice; readonly target: StopTarget }[]) {
  await together(devices, async ({ device }) => {
    if (!device.features.states.p2p) return;
    const state = await device.state();
    if (state === 'RUNNING') await device.setState('RUNNING_P2P');
    else if (state === 'PRE_COPY') await device.setState('PRE_COPY_P2P');
  });
  await together(devices, async ({ device, target }) => {
    const state = await device.state();
    // What is stopped already keeps its session.
    if (state === 'STOP_COPY' || state === 'RESUMING') return;
    const saving = state === 'PRE_COPY' || state === 'PRE_COPY_P2P';
    await device.setState(saving ? 'STOP_COPY' : target);
  });
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

/** All at the same time; ends when all have, and throws what failed first. */
export async function together<T>(all: readonly T[], act: (one: T) => Promise<unknown>): Promise<void> {
  const results = await Promise.allSettled(all.map(act));
  const failed = results.find((result) => result.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}
