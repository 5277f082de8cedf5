import type { SectionName } from '../../machine/index.ts';

export interface SwitchoverAcksOptions {
  /** Property switchover-ack-legacy of the stream's machine type. */
  readonly legacy: boolean;
  /** The source may wait for a word even if no device wants to be waited for. */
  readonly expected: boolean;
  /** Devices that want to be waited for until their initial data is loaded. */
  readonly devices: readonly SectionName[];
  readonly acknowledge: () => void;
}

/**
 * Says to the source when devices are ready for the switchover, in the dialect of its machine type (qemu-wire 7.1). A device that says
 * INIT_DATA_SENT proves that its source waits, whatever the capability is here; and one that has no initial data at this side is ready at once.
 */
export class SwitchoverAcks {
  readonly #options: SwitchoverAcksOptions;
  readonly #notReady: Set<string>;
  #listens = false;
  #said = false;

  constructor(options: SwitchoverAcksOptions) {
    this.#options = options;
    this.#notReady = new Set(options.devices.map(keyOf));
  }

  /** The source listens from now on. In the older dialect it waits for a word even if no device wants to be waited for. */
  returnPathOpened(): void {
    this.#listens = true;
    if (this.#options.legacy && this.#options.expected) this.#sayOnce();
  }

  /** The initial data of the device is loaded. */
  loaded(device: SectionName): void {
    this.#notReady.delete(keyOf(device));
    if (!this.#listens) return;
    if (this.#options.legacy) this.#sayOnce();
    else this.#options.acknowledge();
  }

  #sayOnce(): void {
    if (this.#said || this.#notReady.size > 0) return;
    this.#said = true;
    this.#options.acknowledge();
  }
}

function keyOf({ idstr, instance }: SectionName): string {
  return `${idstr}/${instance}`;
}
