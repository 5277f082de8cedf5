/**
 * The embedded machine: RAM in shared memory, vCPUs that really run, a few devices. One object is source and destination, one
 * after the other and as often as wanted:
 *
 *     prelaunch --resume--> running --stop--> paused | finish-migrate --> postmigrate --awaitIncoming--> inmigrate
 *     inmigrate --prepareRam, loadDevice ..., commit, start--> running | paused        inmigrate --discard--> inmigrate
 */
import { type Arcs, assert, type FerryError, StateMachine } from '../../base/index.ts';
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
import { saveDevices, UNLIMITED_RATE } from './devices.ts';
import { type WorkloadFault, workloadError } from './errors.ts';
import { fingerprintOf } from './fingerprint.ts';
import { Hardware, type PacedProgram } from './hardware.ts';
import { hostClock, hostClockId } from './host-clock.ts';
import { type CheckedConfig, IncomingDevices, type IncomingRunState } from './incoming-devices.ts';
import { type Layout, layoutOf, PAGE_SIZE } from './layout.ts';
import { releaseDroppedMemory } from './memory.ts';
import { type CheckedOptions, checkOptions, type WorkloadOptions } from './options.ts';
import { matchBlocks, ramBlocksOf } from './ram-blocks.ts';
import { type GuestStatistics, guestStatistics, loadCpu, saveCpu } from './registers.ts';
import { verifyMachine } from './verify.ts';
import type { Verdict } from './verify-pages.ts';

/** Guest memory for a thread that writes to it by itself: bytes first, then the page's bit in the log (see dirty-log). */
export interface DeviceMemory {
  /** Guest address of the first byte; so many bytes from there on. */
  readonly iova: number;
  readonly length: number;
  readonly memory: SharedArrayBuffer;
  readonly byteOffset: number;
  /** Int32 words; the first page has bit `firstBit`. */
  readonly log: SharedArrayBuffer;
  readonly firstBit: number;
}

const ARCS: Arcs<RunState> = {
  prelaunch: ['running', 'paused', 'finish-migrate', 'inmigrate', 'shutdown', 'internal-error'],
  inmigrate: ['running', 'paused', 'prelaunch', 'postmigrate', 'shutdown', 'internal-error'],
  running: ['paused', 'finish-migrate', 'shutdown', 'internal-error'],
  paused: ['running', 'finish-migrate', 'postmigrate', 'inmigrate', 'shutdown', 'internal-error'],
  'finish-migrate': ['running', 'paused', 'prelaunch', 'postmigrate', 'shutdown', 'internal-error'],
  postmigrate: ['running', 'paused', 'finish-migrate', 'inmigrate', 'shutdown', 'internal-error'],
  shutdown: ['paused', 'finish-migrate', 'postmigrate', 'inmigrate', 'internal-error'],
  'internal-error': ['shutdown'],
};

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

  readonly #layout: Layout;
  readonly #state: StateMachine<RunState>;
  readonly #console = new Console();
  readonly #now = hostClock();
  #program: PacedProgram;
  #hardware: Hardware | undefined;
  /** Settles when the last start of hardware has succeeded or failed. */
  #starting: Promise<void> | undefined;
  /** Memory and threads are there and untouched (prealloc). */
  #pristine = false;
  #failure: FerryError<WorkloadFault> | undefined;
  #incoming: IncomingDevices | undefined;
  /** Own blocks in the order in which the stream has announced them. */
  #order: readonly number[] = [];
  /** What the stream says the guest shall do; set by commit. */
  #incomingRunState: IncomingRunState | undefined;
  /** Run state that finish-migrate interrupted, until the machine goes on here: what the destination shall go on with. */
  #interrupted: RunState | undefined;
  /** ns the machine has run, without the current run; and when that began. */
  #clockNs = 0;
  #runningSince: number | undefined;

  constructor(options: CheckedOptions) {
    this.machineType = options.machineType;
    this.uuid = options.uuid;
    this.vcpuCount = options.vcpus;
    this.#layout = layoutOf(options.ram, options.deviceMemory);
    this.ram = ramBlocksOf(this.#layout, options.hostPage);
    this.#program = {
      seed: options.seed,
      pattern: options.pattern,
      fillPpm: Math.round(options.fill * 1e6),
      dirtyRate: options.dirtyRate === 'max' ? Infinity : options.dirtyRate,
    };
    this.#state = new StateMachine<RunState>(options.incoming ? 'inmigrate' : 'prelaunch', ARCS);
  }

  /** First step in the life of a machine that is not incoming; `createWorkload` has done it. */
  async powerOn(): Promise<void> {
    await this.#start(true);
  }

  /** Takes the memory and starts the vCPUs for the next migration in advance. */
  async prealloc(): Promise<void> {
    if (this.runState !== 'inmigrate') this.#refuse('wait for a migration');
    await this.#release();
    const { memory } = await this.#start(false);
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
    if (this.#hardware === undefined) {
      return { operations: 0, vcpuOperations: [], lastStopMs: 0, longestGapMs: 0, gaps: 0 };
    }
    return guestStatistics(this.#hardware.control, this.vcpuCount);
  }

  /** What `start` will make of the machine that has arrived; known after `commit`. */
  get startsAs(): RunState | undefined {
    return this.#incomingRunState;
  }

  /** Guest memory that devices write to, and their part of the dirty log. It goes with the machine's other memory. */
  deviceMemory(): DeviceMemory {
    const { shared } = this.#powered('share its device memory');
    const [, , , block] = this.#layout.blocks;
    assert(block !== undefined, 'a machine made without device memory has no devices that write to it');
    const { guestAddress: iova, usedLength: length, firstPage: firstBit } = block;
    return { iova, length, memory: shared.memory[3]!, byteOffset: 0, log: shared.dirtyLog, firstBit };
  }

  /** Console text that nobody has read yet. */
  readConsole(): string {
    return this.#console.read();
  }

  // Source

  get dirtyLog(): DirtyLog | undefined {
    return this.#hardware?.dirtyLog;
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
      this.#stopClock();
    }
    if (this.runState !== 'finish-migrate') this.#move(state, `stop as ${state}`);
  }

  async resume(): Promise<void> {
    const hardware = this.#powered('resume');
    if (this.runState === 'running') return;
    if (this.runState === 'inmigrate') this.#refuse('resume');
    this.#run(hardware);
  }

  setRunState(state: RunState): void {
    if (this.runState === 'running') this.#refuse(`set to ${state}`);
    this.#move(state, `set to ${state}`);
  }

  throttle(percentage: number): void {
    assert(Number.isInteger(percentage) && percentage >= 0 && percentage <= 99, `throttle of ${percentage} %`);
    this.#powered('throttle').vcpus.throttle(percentage);
  }

  async saveDevices(): Promise<SavedDevices> {
    const { control } = this.#stopped('save');
    const { seed, pattern, fillPpm, dirtyRate } = this.#program;
    const clockId = hostClockId();
    return saveDevices(
      {
        config: {
          ram_size: BigInt(this.ram[0]!.usedLength),
          vcpus: this.vcpuCount,
          seed,
          pattern,
          fill_ppm: fillPpm,
          dirty_rate: dirtyRate === Infinity ? UNLIMITED_RATE : BigInt(dirtyRate),
        },
        timer: {
          cpu_ticks_offset: 0n,
          cpu_clock_offset: BigInt(Math.round(this.#clockNs)),
          hostClock: clockId && { clock_id: clockId },
        },
        cpus: Array.from({ length: this.vcpuCount }, (_, vcpu) => saveCpu(control, vcpu)),
        console: this.#console.save(),
        runState: this.#interrupted ?? this.runState,
      },
      this.machineType,
    );
  }

  // Destination

  async configure(_configuration: Configuration): Promise<void> {
    if (this.runState !== 'inmigrate') this.#refuse('be configured');
  }

  /** The memory is allocated and the vCPUs are started here, so that the switchover does not wait for them. */
  async prepareRam(blocks: readonly AnnouncedBlock[], _options: { ignoreShared: boolean }): Promise<IncomingRam> {
    if (this.runState !== 'inmigrate') this.#refuse('receive RAM');
    const order = matchBlocks(this.ram, blocks);
    if (!this.#pristine) await this.#release();
    this.#pristine = false;
    const hardware = this.#hardware ?? (await this.#start(false));
    this.#incoming = new IncomingDevices({ ramBytes: this.ram[0]!.usedLength, vcpuCount: this.vcpuCount });
    this.#order = order;
    return hardware.memory.sink(order);
  }

  missingRam(): MissingRam {
    this.#expected('miss RAM');
    const pageSizes = this.ram.map(({ pageSize }) => pageSize);
    return this.#hardware!.missingPages(this.#order, pageSizes);
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
    this.#program = programOfConfig(config);
    hardware.loadProgram(this.#program);
    const theirs = timer.hostClock?.clock_id;
    const ours = hostClockId();
    const sameClock = theirs !== undefined && ours !== undefined && Buffer.compare(theirs, ours) === 0;
    for (const [vcpu, state] of cpus.entries()) loadCpu(hardware.control, vcpu, state, sameClock);
    this.#clockNs = Number(timer.cpu_clock_offset);
    this.#console.load(console);
    this.#incomingRunState = runState;
  }

  async start(): Promise<void> {
    const runState = this.#incomingRunState;
    if (runState === undefined) return this.#refuse('start before all has arrived');
    this.#incoming = undefined;
    this.#incomingRunState = undefined;
    if (runState !== 'running') return this.#move(runState, 'start');
    this.#run(this.#powered('start'));
  }

  async discard(): Promise<void> {
    if (this.runState === 'inmigrate') await this.#release();
  }

  /** A stopped machine gives up its memory and waits for a migration, as one made with `incoming`. */
  async awaitIncoming(): Promise<void> {
    if (this.runState !== 'inmigrate') this.#move('inmigrate', 'wait for a migration');
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
    this.#move('running', 'run');
    hardware.vcpus.run();
    this.#runningSince = this.#now();
  }

  #start(fill: boolean): Promise<Hardware> {
    const starting = Hardware.start(this.#layout, this.vcpuCount, this.#program, fill, (error) => this.#lost(error));
    this.#starting = starting.then(
      (hardware) => {
        this.#hardware = hardware;
      },
      () => {},
    );
    return starting;
  }

  /** Memory and threads go, and all that had come over a migration. */
  async #release(): Promise<void> {
    await this.#starting;
    this.#pristine = false;
    this.#incoming = undefined;
    this.#incomingRunState = undefined;
    this.#failure = undefined;
    if (this.#hardware === undefined) return;
    const ended = this.#hardware.vcpus.end();
    this.#hardware = undefined;
    await ended;
    releaseDroppedMemory();
  }

  #lost(error: FerryError<WorkloadFault>): void {
    // While it starts, the start fails; while it waits for the stream, the migration does. Both may be tried again.
    if (this.#hardware === undefined) return;
    this.#failure = error;
    this.#console.writeLine(error.message);
    this.#hardware.vcpus.park().catch(() => {});
    this.#stopClock();
    if (this.runState !== 'inmigrate') this.#state.move('internal-error');
  }

  #stopClock(): void {
    if (this.#runningSince === undefined) return;
    this.#clockNs += this.#now() - this.#runningSince;
    this.#runningSince = undefined;
  }

  #move(to: RunState, operation: string): void {
    const from = this.runState;
    if (from === to) return;
    if (!this.#state.can(to)) this.#refuse(operation);
    if (to === 'finish-migrate') this.#interrupted = from;
    else if (to !== 'postmigrate') this.#interrupted = undefined;
    this.#state.move(to);
    this.#console.writeLine(`[${(this.#clockNs / 1e9).toFixed(6)}] ${from} -> ${to}`);
  }

  #powered(operation: string): Hardware {
    if (this.#failure !== undefined) throw this.#failure;
    return this.#hardware ?? this.#refuse(operation);
  }

  #stopped(operation: string): Hardware {
    if (this.runState === 'running' || this.runState === 'inmigrate') this.#refuse(operation);
    return this.#powered(operation);
  }

  #expected(operation: string): IncomingDevices {
    return this.#incoming ?? this.#refuse(operation);
  }

  #refuse(operation: string): never {
    const { runState } = this;
    throw workloadError(
      { code: 'WORKLOAD_RUN_STATE', operation, runState },
      `the machine is in state ${runState}: it cannot ${operation}`,
    );
  }
}

function programOfConfig({ seed, pattern, fill_ppm, dirty_rate }: CheckedConfig): PacedProgram {
  return { seed, pattern, fillPpm: fill_ppm, dirtyRate: dirty_rate === UNLIMITED_RATE ? Infinity : Number(dirty_rate) };
}
