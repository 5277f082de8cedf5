import type { SectionName } from '../../machine/index.ts';

/** A source that sends so little, so many sections one after another, goes round only because it waits. */
const FEW_PAGES = 16;
const ROUNDS_FOR_NOTHING = 50;

export interface SwitchoverAcksOptions {
  /** Property switchover-ack-legacy of the stream's machine type. */
  readonly legacy: boolean;
  /**
   * Whether the source may wait for a word even if no device wants to be waited for. `perhaps`: it may also be one that does not know the word and would
   * choke on it.
   */
  readonly expected: boolean | 'perhaps';
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
  #pages = 0;
  #rounds = 0;

  constructor(options: SwitchoverAcksOptions) {
    this.#options = options;
    this.#notReady = new Set(options.devices.map(keyOf));
  }

  /** The source listens from now on. In the older dialect it waits for a word even if no device wants to be waited for. */
  returnPathOpened(): void {
    this.#listens = true;
    if (this.#options.legacy && this.#options.expected === true) this.#sayOnce();
  }

  /** A section of RAM is over; `pages` have come so far. */
  sectionEnded(pages: number): void {
    if (!this.#listens || !this.#options.legacy || this.#options.expected !== 'perhaps') return;
    this.#rounds = pages - this.#pages < FEW_PAGES ? this.#rounds + 1 : 0;
    this.#pages = pages;
    if (this.#rounds >= ROUNDS_FOR_NOTHING) this.#sayOnce();
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
