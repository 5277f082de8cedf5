import type { VfioDevice } from '../device.ts';
import { isVfioError } from '../errors.ts';
import type { DeviceFunction } from '../function.ts';
import type { DeviceState } from '../states.ts';
import type { ServerEvent } from './events.ts';

/** What a server can offer. */
export type OfferedDevice = VfioDevice & DeviceFunction;

/** The device behind a server, and the state it is in: known here without asking, as nobody else moves it. It outlives its clients. */
export class ServedDevice {
  readonly device: OfferedDevice;
  readonly #tell: (event: ServerEvent) => void;
  #state: DeviceState;

  static async of(device: OfferedDevice, tell: (event: ServerEvent) => void): Promise<ServedDevice> {
    return new ServedDevice(device, tell, await device.state());
  }

  constructor(device: OfferedDevice, tell: (event: ServerEvent) => void, state: DeviceState) {
    this.device = device;
    this.#tell = tell;
    this.#state = state;
  }

  get state(): DeviceState {
    return this.#state;
  }

  /** Throws as VfioDevice.setState. */
  async move(target: DeviceState, deadlineMs?: number): Promise<void> {
    try {
      await this.device.setState(target, deadlineMs === undefined ? {} : { deadlineMs });
    } catch (error) {
      if (isVfioError(error) && error.fault.code === 'VFIO_ARC_FAILED') this.#enter(error.fault.state);
      throw error;
    }
    this.#enter(target);
  }

  async reset(): Promise<void> {
    await this.device.reset();
    this.#tell({ kind: 'reset' });
    this.#enter('RUNNING');
  }

  #enter(to: DeviceState): void {
    const from = this.#state;
    if (from === to) return;
    this.#state = to;
    this.#tell({ kind: 'state', from, to });
  }
}
