/** Memory and vCPUs of a machine: what costs, and goes away as a whole when the machine waits for a migration. */
import type { FerryError } from '../../base/index.ts';
import { type Control, controlOf, storeParameters } from './control-words.ts';
import { newDirtyLogMemory, WorkloadDirtyLog } from './dirty-log.ts';
import type { WorkloadFault } from './errors.ts';
import { type Layout, PAGE_SIZE } from './layout.ts';
import { Memory } from './memory.ts';
import type { SharedMachine } from './messages.ts';
import { MissingPages, newPresentMemory } from './missing-pages.ts';
import type { ProgramParameters } from './program.ts';
import { Vcpus } from './vcpus.ts';

/** What the vCPUs compute, and how fast: bytes of written pages per second of all together, Infinity = as fast as they can. */
export interface PacedProgram extends ProgramParameters {
  readonly dirtyRate: number;
}

export class Hardware {
  readonly layout: Layout;
  readonly memory: Memory;
  readonly control: Control = controlOf();
  readonly dirtyLog: WorkloadDirtyLog;
  readonly shared: SharedMachine;
  #vcpus: Vcpus | undefined;

  private constructor(layout: Layout, vcpuCount: number) {
    this.layout = layout;
    this.memory = new Memory(layout);
    const dirtyLog = newDirtyLogMemory(layout);
    this.dirtyLog = new WorkloadDirtyLog(dirtyLog, layout, (on) => this.vcpus.log(on));
    const ramBytes = layout.blocks[0].usedLength;
    const present = newPresentMemory(layout);
    this.shared = { ramBytes, vcpuCount, memory: this.memory.shared, dirtyLog, present, control: this.control.shared };
  }

  /** All vCPUs parked; memory zero, or with `fill` as the program begins. Throws as `Vcpus.start`. */
  static async start(
    layout: Layout,
    vcpuCount: number,
    program: PacedProgram,
    fill: boolean,
    died: (error: FerryError<WorkloadFault>) => void,
  ): Promise<Hardware> {
    const hardware = new Hardware(layout, vcpuCount);
    hardware.loadProgram(program);
    hardware.#vcpus = await Vcpus.start(hardware.shared, hardware.control, fill, died);
    return hardware;
  }

  get vcpus(): Vcpus {
    return this.#vcpus!;
  }

  /** Of RAM that arrives while the guest runs. `order[i]`: the layout's block for the stream's block i; `pageSizes`: of the layout's blocks, bytes. */
  missingPages(order: readonly number[], pageSizes: readonly number[]): MissingPages {
    const { layout, control, vcpus } = this;
    const { present, vcpuCount } = this.shared;
    return new MissingPages({ layout, control, present, vcpus, vcpuCount, order, pageSizes });
  }

  /** Only while all vCPUs are parked: they look at it when they run again. */
  loadProgram(program: PacedProgram): void {
    storeParameters(this.control, program);
    this.control.rate[0] = program.dirtyRate / PAGE_SIZE / this.shared.vcpuCount / 1e9;
  }
}
