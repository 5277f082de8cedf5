import type { FerryError } from '../../base/index.ts';
import type { WorkloadFault } from './errors.ts';
import { Hardware, type PacedProgram } from './hardware.ts';
import type { Layout } from './layout.ts';
import { releaseDroppedMemory } from './memory.ts';

/** A machine has hardware only from time to time: it is started, may fail, and is given back. */
export class Power {
  readonly #layout: Layout;
  readonly #vcpuCount: number;
  readonly #failed: (error: FerryError<WorkloadFault>) => void;
  #hardware: Hardware | undefined;
  /** Settles when the last start has succeeded or failed. */
  #starting: Promise<void> | undefined;
  #failure: FerryError<WorkloadFault> | undefined;

  /** `failed`: a vCPU has died, the others are being parked. */
  constructor(layout: Layout, vcpuCount: number, failed: (error: FerryError<WorkloadFault>) => void) {
    this.#layout = layout;
    this.#vcpuCount = vcpuCount;
    this.#failed = failed;
  }

  get hardware(): Hardware | undefined {
    return this.#hardware;
  }

  /** Why it does not work any more. */
  get failure(): FerryError<WorkloadFault> | undefined {
    return this.#failure;
  }

  /** Settles when no start is under way. */
  async settled(): Promise<void> {
    await this.#starting;
  }

  /** As `Hardware.start`. */
  on(program: PacedProgram, fill: boolean): Promise<Hardware> {
    const starting = Hardware.start(this.#layout, this.#vcpuCount, program, fill, (error) => this.#died(error));
    this.#starting = starting.then(
      (hardware) => {
        this.#hardware = hardware;
      },
      () => {},
    );
    return starting;
  }

  /** Memory and threads go. Not while a start is under way. */
  async off(): Promise<void> {
    this.#failure = undefined;
    if (this.#hardware === undefined) return;
    const ended = this.#hardware.vcpus.end();
    this.#hardware = undefined;
    await ended;
    releaseDroppedMemory();
  }

  #died(error: FerryError<WorkloadFault>): void {
    // While it starts, the start fails; while it waits for the stream, the migration does. Both may be tried again.
    if (this.#hardware === undefined) return;
    this.#failure = error;
    this.#hardware.vcpus.park().catch(() => {});
    this.#failed(error);
  }
}
