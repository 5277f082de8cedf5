/** What loading a device takes here: measured while it was loaded, this time or the last, and until then as the device declares it. */
import { nowMs } from '../../base/index.ts';
import type { LoadCost, LoadOrder } from '../../machine/index.ts';
import type { LoadFigures } from '../device.ts';
import type { GuardedDevice } from './guarded-device.ts';

/** Of a device that declares nothing and was never loaded. */
const NOTHING_KNOWN: LoadFigures = { allocationMs: 0, bytesPerMs: Number.POSITIVE_INFINITY, configMs: 0 };

export class LoadRecord {
  readonly #device: GuardedDevice;
  #begun = false;
  #allocationMs: number | undefined;
  #bytes = 0;
  #ms = 0;
  #configMs: number | undefined;
  #lastWriteMs = 0;
  #startMs = 0;

  constructor(device: GuardedDevice) {
    this.#device = device;
  }

  /** A load begins; what is known of the last one stays until this one tells better. */
  begin(): void {
    this.#begun = false;
    this.#startMs = 0;
  }

  /** The device waits for its data. Asked now what it takes to start: later it answers only when it has taken what it was given. */
  waiting(): void {
    this.#device.estimate('RUNNING').then(
      (ms = 0) => {
        this.#startMs = ms;
      },
      // Whatever is wrong with it shows when it matters.
      () => {},
    );
  }

  /** From the last byte of its state to RUNNING, its configuration left out, ms. */
  get startMs(): number {
    return this.#startMs;
  }

  /** A write is over that was asked for at `calledMs`. With the first of a load the device takes what it needs. */
  wrote(bytes: number, calledMs: number): void {
    const now = nowMs();
    const ms = now - Math.max(calledMs, this.#lastWriteMs);
    this.#lastWriteMs = now;
    if (this.#begun) {
      this.#bytes += bytes;
      this.#ms += ms;
      return;
    }
    this.#begun = true;
    this.#allocationMs = ms;
    this.#bytes = 0;
    this.#ms = 0;
  }

  configured(ms: number): void {
    this.#configMs = ms;
  }

  /** The device has what it needs for this load. */
  get begun(): boolean {
    return this.#begun;
  }

  get figures(): LoadFigures {
    const declared = this.#device.loadFigures ?? NOTHING_KNOWN;
    return {
      allocationMs: this.#allocationMs ?? declared.allocationMs,
      bytesPerMs: this.#bytes > 0 && this.#ms > 0 ? this.#bytes / this.#ms : declared.bytesPerMs,
      configMs: this.#configMs ?? declared.configMs,
    };
  }
}

export interface DeviceToLoad {
  readonly figures: LoadFigures;
  /** Of its allocation, what is not over yet, ms. */
  readonly allocationMs: number;
  /** From the last byte of its state to RUNNING, its configuration left out, ms. */
  readonly startMs: number;
  /** Its configuration is loaded under the machine lock. */
  readonly lock: boolean;
}

/** All of them, in that order. */
export function loadCostOf(devices: readonly DeviceToLoad[], order: LoadOrder): LoadCost {
  return {
    ms: loadMs(devices, order),
    bytesPerMs: devices.reduce((min, { figures }) => Math.min(min, figures.bytesPerMs), Number.POSITIVE_INFINITY),
  };
}

function loadMs(devices: readonly DeviceToLoad[], order: LoadOrder): number {
  const most = (list: readonly DeviceToLoad[], of: (device: DeviceToLoad) => number) => Math.max(0, ...list.map(of));
  const sum = (list: readonly DeviceToLoad[], of: (device: DeviceToLoad) => number) =>
    list.reduce((total, device) => total + of(device), 0);
  const state = ({ allocationMs, startMs }: DeviceToLoad) => allocationMs + startMs;
  const config = ({ figures }: DeviceToLoad) => figures.configMs;
  const both = (device: DeviceToLoad) => state(device) + config(device);
  const locked = devices.filter(({ lock }) => lock);
  const free = devices.filter(({ lock }) => !lock);
  switch (order) {
    case 'parallel':
      return Math.max(most(free, both), most(locked, state) + sum(locked, config));
    case 'after-iterables':
      return most(devices, state) + Math.max(most(free, config), sum(locked, config));
    case 'serial':
      return most(devices, state) + sum(devices, config);
    case 'in line':
      return sum(devices, both);
  }
}
