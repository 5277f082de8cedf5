/**
 * Does what the devices of libvfio-user's samples did in the captured conversations, so that our server can be asked the same.
 *
 * Its data are regions one after the other: `early` of them in PRE_COPY, all of them, from the first on, in STOP_COPY (which breaks the rule
 * that a session is one stream: that is how the sample does it).
 */
import type { DeviceInterrupt, DeviceRegion, DeviceState, ReadResult } from '../../../src/vfio/index.ts';
import { RamDevice } from './ram-device.ts';

export interface SampleParts {
  /** By index; 7 is the configuration space. */
  readonly regions: ReadonlyMap<number, Buffer>;
  readonly interrupts: readonly DeviceInterrupt[];
  /** Regions whose bytes are its state, in order, and how many of them PRE_COPY has. */
  readonly state: readonly number[];
  readonly early: number;
}

/** What a guest can change of the configuration space: command and interrupt line. */
const CONFIG_WRITABLE = [4, 5, 0x3c];
const CONFIG = 7;

export class SampleDevice extends RamDevice {
  override readonly regions: readonly DeviceRegion[];
  override readonly interrupts: readonly DeviceInterrupt[];
  readonly #parts: SampleParts;
  #read = 0;
  #loaded: Buffer[] = [];

  constructor(parts: SampleParts) {
    super({ stopCopySize: false });
    this.#parts = parts;
    this.interrupts = parts.interrupts;
    this.regions = [...parts.regions].map(([index, { length }]) => ({
      index,
      size: length,
      readable: true,
      writable: true,
    }));
  }

  override async readRegion(index: number, offset: number, into: Buffer): Promise<void> {
    this.#parts.regions.get(index)!.copy(into, 0, offset);
  }

  override async writeRegion(index: number, offset: number, bytes: Buffer): Promise<void> {
    const region = this.#parts.regions.get(index)!;
    for (const [at, byte] of bytes.entries()) {
      if (index !== CONFIG || CONFIG_WRITABLE.includes(offset + at)) region[offset + at] = byte;
    }
  }

  override async reset(): Promise<void> {}

  protected override entered(_from: DeviceState, to: DeviceState): void {
    this.#read = 0;
    if (to === 'RESUMING') this.#loaded = [];
  }

  protected override load(): undefined {
    const bytes = Buffer.concat(this.#loaded);
    let at = 0;
    for (const index of this.#parts.state) at += bytes.copy(this.#parts.regions.get(index)!, 0, at);
  }

  override async read(into: Buffer): Promise<ReadResult> {
    const saved = (await this.state()) === 'PRE_COPY' ? this.#parts.early : this.#parts.state.length;
    const state = Buffer.concat(this.#parts.state.slice(0, saved).map((index) => this.#parts.regions.get(index)!));
    const count = state.copy(into, 0, this.#read);
    this.#read += count;
    return count === 0 ? 'nothing now' : count;
  }

  override async write(bytes: Buffer): Promise<void> {
    this.#loaded.push(Buffer.from(bytes));
  }
}
