/** Devices after a failure: each is taken to the state that its machine is in, reset if nothing else helps, or given up. */
import type { DeviceState } from '../states.ts';
import type { GuardedDevice } from './guarded-device.ts';
import { AFTER_SAVING, together } from './running.ts';

/** A migration that has failed does not wait longer than this for devices to become fresh again, ms. */
const DISCARD_MS = 5_000;

export class DeviceRecovery {
  /** Devices that had to be reset after a failure, each time: their state was lost. */
  readonly #resets: GuardedDevice[] = [];

  resetsOf(device: GuardedDevice): number {
    return this.#resets.filter((one) => one === device).length;
  }

  /**
   * To `target`, whatever it takes: what was refused once is asked for again, and who still refuses, or has failed, is reset: its state is lost
   * then. Throws if not even that helps; not if the device is gone.
   */
  async bring(device: GuardedDevice, target: DeviceState): Promise<void> {
    const goes = () =>
      device.setState(target).then(
        () => true,
        () => device.lost,
      );
    if (await goes()) return;
    const state = await device.state().catch(() => undefined);
    if (device.lost || (state !== 'ERROR' && (await goes()))) return;
    await device.reset();
    this.#resets.push(device);
    await device.setState(target);
  }

  /** Out of its saving session, and out of ERROR: then to `rest`. */
  async settle(device: GuardedDevice, rest: () => 'RUNNING' | 'STOP'): Promise<void> {
    const state = await device.state().catch(() => 'ERROR' as const);
    await this.bring(device, state === 'ERROR' ? rest() : (AFTER_SAVING[state] ?? state));
  }
}

/** As new ones, for another migration to come in; one that cannot be made fresh in time is given up. */
export async function freshDevices(devices: readonly GuardedDevice[]): Promise<void> {
  await together(devices, async (device) => {
    const late = setTimeout(() => void device.close(), DISCARD_MS);
    await device.reset().catch(() => device.reset().catch(() => {}));
    clearTimeout(late);
  });
}
