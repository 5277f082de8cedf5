/**
 * The embedded machine: RAM in shared memory, vCPUs that really run, a few devices. One object is source and destination, one
 * after the other and as often as wanted:
 *
 *     prelaunch --resume--> running --stop--> paused | finish-migrate --> postmigrate --awaitIncoming--> inmigrate
 *     inmigrate --prepareRam, loadDevice ..., commit, start--> running | paused        inmigrate --discard--> inmigrate
 */
import { assert, type FerryError } from '../../base/index.ts';
import type { Configuration, SectionHeader } from '../../wire/index.ts';
import type {
  AnnouncedBlock,
  DestinationMachine,
  DirtyLog,
  IncomingRam,
  MissingRam,
  PageWindow,
  RamBlock,
  RunState,
  SavedDevices,
  SourceIterable,
  SourceMachine,
} from '../machine.ts';
import type { MemoryRam } from '../shared-ram.ts';
import { Console } from './console.ts';
import { type DeviceMemory, deviceMemoryOf } from './device-memory.ts';
import { configOf, programOf, saveDevices } from './devices.ts';
import type { WorkloadFault } from './errors.ts';
import { fingerprintOf } from './fingerprint.ts';
import { GuestClock } from './guest-clock.ts';
import type { Hardware, PacedProgram } from './hardware.ts';
import { hostClockId } from './host-clock.ts';
import { IncomingDevices, type IncomingRunState } from './incoming-devices.ts';
import { layoutOf, PAGE_SIZE } from './layout.ts';
import { type CheckedOptions, checkOptions, type WorkloadOptions } from './options.ts';
import { Power } from './power.ts';
import { matchBlocks, ramBlocksOf } from './ram-blocks.ts';
import { type GuestStatistics, guestStatistics, loadCpu, saveCpu } from './registers.ts';
import { RunStates } from './run-states.ts';
import { verifyMachine } from './verify.ts';
import type { Verdict } from './verify-pages.ts';

/** Makes a machine: in prelaunch with its memory filled, or (`incoming`) in inmigrate without memory. Throws WorkloadFault. */
export async function createWorkload(options: WorkloadOptions): Promise<WorkloadMachine> {
  const checked = checkOptions(options);
  const machine = new WorkloadMachine(checked);
  if (!checked.incoming) await machine.powerOn();
  else if (checked.prealloc) await machine.prealloc();
  return machine;
}

export class WorkloadMachine implements SourceMachine, DestinationMachine {
  readonly machineType: string;
  readonly uuid: Uint8Array | undefined;
  readonly targetPageSize = PAGE_SIZE;
  readonly ram: readonly RamBlock[];
  readonly iterables: readonly SourceIterable[] = [];
  readonly vcpuCount: number;

  readonly #power: Power;
  readonly #state: RunStates;
  readonly #console = new Console();
  readonly #clock = new GuestClock();
  #program: PacedProgram;
  /** Memory and threads are there and untouched (prealloc). */
  #pristine = false;
  #incoming: IncomingDevices | undefined;
  /** Own blocks in the order in which the stream has announced them. */
  #order: readonly number[] = [];
  /** What the stream says the guest shall do; set by commit. */
  #incomingRunState: IncomingRunState | undefined;

  constructor(options: CheckedOptions) {
    this.machineType = options.machineType;
    this.uuid = options.uuid;
    this.vcpuCount = options.vcpus;
    const layout = layoutOf(options.ram, options.deviceMemory);
    this.ram = ramBlocksOf(layout, options.hostPage);
    this.#power = new Power(layout, this.vcpuCount, (error) => this.#failed(error));
    this.#program = {
      seed: options.seed,
      pattern: options.pattern,
      fillPpm: Math.round(options.fill * 1e6),
      dirtyRate: options.dirtyRate === 'max' ? Infinity : options.dirtyRate,
    };
    this.#state = new RunStates(options.incoming ? 'inmigrate' : 'prelaunch', ({ from, to }) =>
      this.#console.writeLine(`[${(this.#clock.ns / 1e9).toFixed(6)}] ${from} -> ${to}`),
    );
  }

  /** First step in the life of a machine that is not incoming; `createWorkload` has done it. */
  async powerOn(): Promise<void> {
    await this.#power.on(this.#program, true);
  }

  /** Takes the memory and starts the vCPUs for the next migration in advance. */
  async prealloc(): Promise<void> {
    if (this.runState !== 'inmigrate') this.#state.refuse('wait for a migration');
    await this.#release();
    const { memory } = await this.#power.on(this.#program, false);
    memory.populate();
    this.#pristine = true;
  }

  get runState(): RunState {
    return this.#state.state;
  }

  /** The program it runs: the one it was made with, or since a migration the source's. */
  get program(): PacedProgram {
    return this.#program;
  }

  /** What the guest has done and seen; all zero in inmigrate. */
  get statistics(): GuestStatistics {
    if (this.#power.hardware === undefined) {
      return { operations: 0, vcpuOperations: [], lastStopMs: 0, longestGapMs: 0, gaps: 0 };
    }
    return guestStatistics(this.#power.hardware.control, this.vcpuCount);
  }

  /** What `start` will make of the machine that has arrived; known after `commit`. */
  get startsAs(): RunState | undefined {
    return this.#incomingRunState;
  }

  /** Guest memory that devices write to, and their part of the dirty log. It goes with the machine's other memory. */
  deviceMemory(): DeviceMemory {
    return deviceMemoryOf(this.#powered('share its device memory'));
  }

  /** Console text that nobody has read yet. */
  readConsole(): string {
    return this.#console.read();
  }

  // Source

  get dirtyLog(): DirtyLog | undefined {
    return this.#power.hardware?.dirtyLog;
  }

  window(block: number, page: number): PageWindow {
    return this.#powered('window').memory.window(block, page);
  }

  sharedRam(): MemoryRam {
    return this.#powered('share its RAM').memory.ram();
  }

  /** A migration that completes keeps its state whoever else stops the machine. Throws WORKLOAD_VCPU_SILENT (it then runs on), WORKLOAD_VCPU_DIED. */
  async stop(state: RunState): Promise<void> {
    if (this.runState === 'running') {
      const { vcpus } = this.#powered('stop');
      try {
        await vcpus.park();
      } catch (error) {
        if (this.runState === 'running') vcpus.run();
        throw error;
      }
      this.#clock.stop();
    }
    if (this.runState !== 'finish-migrate') this.#state.move(state, `stop as ${state}`);
  }

  async resume(): Promise<void> {
    const hardware = this.#powered('resume');
    if (this.runState === 'running') return;
    if (this.runState === 'inmigrate') this.#state.refuse('resume');
    this.#run(hardware);
  }

  setRunState(state: RunState): void {
    if (this.runState === 'running') this.#state.refuse(`set to ${state}`);
    this.#state.move(state, `set to ${state}`);
  }

  throttle(percentage: number): void {
    assert(Number.isInteger(percentage) && percentage >= 0 && percentage <= 99, `throttle of ${percentage} %`);
    this.#powered('throttle').vcpus.throttle(percentage);
  }

  async saveDevices(): Promise<SavedDevices> {
    const { control } = this.#stopped('save');
    const clockId = hostClockId();
    return saveDevices(
      {
        config: configOf(this.#program, this.ram[0]!.usedLength, this.vcpuCount),
        timer: {
          cpu_ticks_offset: 0n,
          cpu_clock_offset: BigInt(Math.round(this.#clock.ns)),
          hostClock: clockId && { clock_id: clockId },
        },
        cpus: Array.from({ length: this.vcpuCount }, (_, vcpu) => saveCpu(control, vcpu)),
        console: this.#console.save(),
        runState: this.#state.toGoOnWith,
      },
      this.machineType,
    );
  }

  // Destination

  async configure(_configuration: Configuration): Promise<void> {
    if (this.runState !== 'inmigrate') this.#state.refuse('be configured');
  }

  /** The memory is allocated and the vCPUs are started here, so that the switchover does not wait for them. */
  async prepareRam(blocks: readonly AnnouncedBlock[], _options: { ignoreShared: boolean }): Promise<IncomingRam> {
    if (this.runState !== 'inmigrate') this.#state.refuse('receive RAM');
    const order = matchBlocks(this.ram, blocks);
    if (!this.#pristine) await this.#release();
    this.#pristine = false;
    const hardware = this.#power.hardware ?? (await this.#power.on(this.#program, false));
    this.#incoming = new IncomingDevices({ ramBytes: this.ram[0]!.usedLength, vcpuCount: this.vcpuCount });
    this.#order = order;
    return hardware.memory.sink(order);
  }

  missingRam(): MissingRam {
    this.#expected('miss RAM');
    const pageSizes = this.ram.map(({ pageSize }) => pageSize);
    return this.#power.hardware!.missingPages(this.#order, pageSizes);
  }

  /** Memory takes pages at once. */
  drain(): undefined {}

  async loadDevice(section: SectionHeader, body: Buffer): Promise<void> {
    this.#expected('load a device').load(section, body);
  }

  /** It has no iterable state but RAM. */
  async loadElement(section: SectionHeader): Promise<void> {
    this.#expected('load a device').load(section, Buffer.alloc(0));
  }

  measureDevice(section: SectionHeader, bytes: Buffer): number | undefined {
    return this.#expected('load a device').measure(section, bytes);
  }

  /** The devices are known here; the description tells nothing new. */
  async describe(_description: string): Promise<void> {}

  /** Throws WORKLOAD_DEVICES_MISSING. */
  async commit(): Promise<void> {
    const { config, timer, cpus, console, runState } = this.#expected('commit').complete();
    const hardware = this.#powered('commit');
    this.#program = programOf(config);
    hardware.loadProgram(this.#program);
    const theirs = timer.hostClock?.clock_id;
    const ours = hostClockId();
    const sameClock = theirs !== undefined && ours !== undefined && Buffer.compare(theirs, ours) === 0;
    for (const [vcpu, state] of cpus.entries()) loadCpu(hardware.control, vcpu, state, sameClock);
    this.#clock.load(Number(timer.cpu_clock_offset));
    this.#console.load(console);
    this.#incomingRunState = runState;
  }

  async start(): Promise<void> {
    const runState = this.#incomingRunState;
    if (runState === undefined) return this.#state.refuse('start before all has arrived');
    this.#incoming = undefined;
    this.#incomingRunState = undefined;
    if (runState !== 'running') return this.#state.move(runState, 'start');
    this.#run(this.#powered('start'));
  }

  async discard(): Promise<void> {
    if (this.runState === 'inmigrate') await this.#release();
  }

  /** A stopped machine gives up its memory and waits for a migration, as one made with `incoming`. */
  async awaitIncoming(): Promise<void> {
    if (this.runState !== 'inmigrate') this.#state.move('inmigrate', 'wait for a migration');
    await this.#release();
  }

  // Evidence

  /** Recomputes every page and register of the stopped machine from its program, in threads of its own. */
  async verify(signal?: AbortSignal): Promise<Verdict> {
    const { shared, control } = this.#stopped('be verified');
    return verifyMachine(shared, control, signal);
  }

  /** Equal for stopped machines in the same state, different for most others; cheap. */
  fingerprint(): string {
    return fingerprintOf(this.#stopped('be fingerprinted'));
  }

  /** Ends all threads. Never throws; the machine is of no use afterwards. */
  async dispose(): Promise<void> {
    await this.#release();
  }

  #run(hardware: Hardware): void {
    this.#state.move('running', 'run');
    hardware.vcpus.run();
    this.#clock.start();
  }

  /** Memory and threads go, and all that had come over a migration. */
  async #release(): Promise<void> {
    await this.#power.settled();
    this.#pristine = false;
    this.#incoming = undefined;
    this.#incomingRunState = undefined;
    await this.#power.off();
  }

  #failed(error: FerryError<WorkloadFault>): void {
    this.#console.writeLine(error.message);
    this.#clock.stop();
    this.#state.fail();
  }

  #powered(operation: string): Hardware {
    if (this.#power.failure !== undefined) throw this.#power.failure;
    return this.#power.hardware ?? this.#state.refuse(operation);
  }

  #stopped(operation: string): Hardware {
    if (this.runState === 'running' || this.runState === 'inmigrate') this.#state.refuse(operation);
    return this.#powered(operation);
  }

  #expected(operation: string): IncomingDevices {
    return this.#incoming ?? this.#state.refuse(operation);
  }
}
