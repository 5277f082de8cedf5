import type { PendingBytes } from '../../machine/index.ts';
import type { GuardedDevice } from './guarded-device.ts';

/** A device that cannot tell how much it will save counts as this much (qemu: VFIO_MIG_STOP_COPY_SIZE). */
const UNKNOWN_BYTES = 100 * 1024 ** 3;

/** What a device has still to save: as it has told last, less what has been read since. */
export class RemainingState {
  readonly #device: GuardedDevice;
  readonly #renewed: () => void;
  #initialBytes = 0;
  #dirtyBytes = 0;
  #stopBytes = 0;

  /** `renewed`: there is initial data once more. */
  constructor(device: GuardedDevice, renewed: () => void) {
    this.#device = device;
    this.#renewed = renewed;
  }

  /** Of what can be read while it runs, in front of all else. */
  get initialBytes(): number {
    return this.#initialBytes;
  }

  get pending(): PendingBytes {
    const precopy = this.#initialBytes + this.#dirtyBytes;
    return { precopy, stopCopy: Math.max(0, this.#stopBytes - precopy) };
  }

  /** Asks the device. */
  async ask(): Promise<void> {
    const { stopCopySize, precopyInfo } = this.#device.features;
    this.#stopBytes = stopCopySize ? await this.#device.stopCopySize() : UNKNOWN_BYTES;
    const precopy = await inPrecopy(this.#device);
    if (precopy && precopyInfo) await this.#askPrecopy();
    if (!precopy) this.nothingNow();
  }

  /** The device has nothing to read before it stops. */
  nothingNow(): void {
    this.#initialBytes = 0;
    this.#dirtyBytes = 0;
  }

  /**
   * Initial bytes come before all others. What the estimate says to be out is asked for before anything depends on it. What has been read need
   * not be read when the device stands: without this, all of its state would count as left for ever, and nobody would ask anew.
   */
  async wasRead(bytes: number): Promise<void> {
    this.#stopBytes = Math.max(0, this.#stopBytes - bytes);
    const initial = Math.min(this.#initialBytes, bytes);
    this.#dirtyBytes = Math.max(0, this.#dirtyBytes - (bytes - initial));
    if (initial === 0) return;
    this.#initialBytes -= initial;
    const isOut = this.#initialBytes === 0 && this.#device.features.precopyInfo;
    if (isOut && (await inPrecopy(this.#device))) await this.#askPrecopy();
  }

  async #askPrecopy(): Promise<void> {
    const { initialBytes, dirtyBytes, reinit } = await this.#device.precopyInfo();
    if (reinit && initialBytes > 0) this.#renewed();
    this.#initialBytes = initialBytes;
    this.#dirtyBytes = dirtyBytes;
  }
}

export async function inPrecopy(device: GuardedDevice): Promise<boolean> {
  const state = await device.state();
  return state === 'PRE_COPY' || state === 'PRE_COPY_P2P';
}
