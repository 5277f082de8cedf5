/**
 * What is migrated, as the engine sees it. The engine never knows which machine it moves: the embedded machine (`workload`) and
 * the checkpoint machine implement these contracts; VFIO devices come in as `iterables` and elements.
 */
import type { AnnouncedBlock, Configuration, RamSink, SectionHeader, VfioElement } from '../wire/index.ts';
import type { SharedRam } from './shared-ram.ts';

export type { AnnouncedBlock, RamSink };

/** QEMU's RunState names that occur here (qapi/run-state.json). */
export type RunState =
  | 'prelaunch'
  | 'inmigrate'
  | 'running'
  | 'paused'
  | 'finish-migrate'
  | 'postmigrate'
  | 'shutdown'
  | 'internal-error';

export interface RamBlock {
  /** Place in `ram`; the engine's handle for the block. */
  readonly index: number;
  readonly idstr: string;
  /** Bytes, a multiple of the target page size. */
  readonly usedLength: number;
  /** Host page size backing the block, bytes. */
  readonly pageSize: number;
  /** Offset in guest physical memory, bytes; sent with x-ignore-shared only. */
  readonly guestAddress: number;
  /** Backed by memory both sides can see: skipped under x-ignore-shared. */
  readonly shared: boolean;
}

/** Part of a block's memory that can be read in place: page `p` of the block is at `bytes[(p - firstPage) * P]`. */
export interface PageWindow {
  bytes: Buffer;
  /** Address of `bytes` for transfers straight from memory; undefined if they are to be copied. */
  address?: number | undefined;
  firstPage: number;
  pageCount: number;
}

/** Where pages can be read. */
export interface PageSource {
  /**
   * A window that contains `page`. Valid until the next call for any block. Memory answers at once with a window as large as it can
   * (the same object each time); a file reads ahead and answers with a promise.
   */
  window(block: number, page: number): PageWindow | Promise<PageWindow>;
}

/** A device whose state goes by the VFIO protocol, as both ends of a migration compare it. */
export interface MachineDevice extends SectionName {
  readonly name: string;
  /** Part of its state is read, or loaded, while it runs at the source. */
  readonly precopy: boolean;
  readonly p2p: boolean;
  /** A part of that state prepares the device at the destination (switchover-ack). */
  readonly initialData: boolean;
  /** It can be asked to stop within a given time. */
  readonly deadlines: boolean;
}

/** What moving a device takes, as far as is known of it now. */
export interface DeviceFigures extends SectionName {
  /** That it would save if it were stopped now; undefined: it cannot tell. */
  readonly stateBytes: number | undefined;
  /** To load it, and no other, at this side. */
  readonly load: LoadCost;
}

/** What a machine has that the engine may send. All of it is called on the event loop; only what returns a promise may wait. */
export interface SourceMachine extends PageSource {
  readonly machineType: string;
  /** 16 bytes, or undefined if none was given. */
  readonly uuid: Uint8Array | undefined;
  readonly targetPageSize: number;
  readonly ram: readonly RamBlock[];
  readonly runState: RunState;
  readonly devices?: readonly MachineDevice[];
  /** A part of it that has not answered for a while, for people. */
  readonly waitingFor?: string | undefined;

  /** For single pages out of order, beside `window`: its windows are its own. Absent: those of `window` are valid for good. */
  pageSource?(): PageSource;
  /** Pages of the block that may be other than zero, if the machine knows without looking (a file); the rest need no window. */
  pageMap?(block: number): Uint32Array | undefined;
  /** The same RAM for threads (parallel channels), its blocks in the order of `ram`. Throws if the machine has none now. */
  sharedRam(): SharedRam;

  /** A machine that never runs (checkpoint) has none: every page is sent once. */
  readonly dirtyLog: DirtyLog | undefined;

  /**
   * Stops every vCPU (and device) and enters `state`; resolves when none touches memory any more. With finish-migrate the machine
   * remembers the state that it leaves (running, paused ...): that is what its global state section says, whatever comes after.
   */
  stop(state: RunState): Promise<void>;
  /**
   * As `stop`, all or nothing: it is through in `deadlineMs`, or resolves with why that could not be promised or was not kept, and then the machine
   * runs, and its iterables go on, as before. Throws what `stop` throws, and when there is no way back. Absent: nothing in it is ever late.
   */
  stopWithin?(state: RunState, deadlineMs: number): Promise<Error | undefined>;
  /** As it is now, at a destination that loads in this order. Absent: nothing to speak of. */
  switchoverCost?(order: LoadOrder): Promise<SwitchoverCost>;
  /** Of its devices. */
  deviceFigures?(): Promise<readonly DeviceFigures[]>;
  /** Runs again after `stop`. */
  resume(): Promise<void>;
  /** Moves a stopped machine to another stopped state (finish-migrate -> postmigrate). */
  setRunState(state: RunState): void;
  /** Share of time taken away from each vCPU, per cent 0..99; 0 lifts the throttle. */
  throttle(percentage: number): void;

  /** State of everything that is not iterable, machine stopped, in section order; with it the self-description of the stream. */
  saveDevices(): Promise<SavedDevices>;
  /** Sections that go before the START sections (virtio-mem with early migration: a checkpoint may hold such). */
  readonly earlyDevices?: readonly DeviceSection[];
  /** Iterable state other than RAM (VFIO devices, bitmaps), in registration order. Its FULL section, if it has one, is among the devices. */
  readonly iterables: readonly SourceIterable[];
}

export interface SavedDevices {
  readonly sections: readonly DeviceSection[];
  /** Object of VMDESC; undefined if the machine has none (then an empty description is sent). Text is sent as is. */
  readonly description: string | undefined;
}

export interface DeviceSection {
  readonly idstr: string;
  readonly instance: number;
  readonly version: number;
  readonly body: Uint8Array;
}

/** One bit a page, as KVM's dirty log: a store sets the bit after the bytes are in memory. */
export interface DirtyLog {
  /** From the return of this call on, every store sets its bit. */
  start(): Promise<void>;
  /** Before a harvest: gets what devices have logged themselves. */
  collect?(): Promise<void>;
  /** Moves the bits set since the last harvest into `into` (OR) and clears them; returns how many bits were newly set in `into`. */
  harvest(block: number, into: Uint32Array): number;
  stop(): Promise<void>;
}

/** Bytes still to send: `precopy` may go while the guest runs, `stopCopy` only after. */
export interface PendingBytes {
  readonly precopy: number;
  readonly stopCopy: number;
}

/** What a switchover takes beside the time that bytes need on their way. */
export interface SwitchoverCost {
  /** For devices to stop, ms. */
  readonly stopMs: number;
  /** At a destination like this side. */
  readonly load: LoadCost;
}

/**
 * Which devices of a machine load their state and their configurations at the same time:
 *
 *     parallel           all; those that need the machine lock load their configurations one after the other
 *     after-iterables    likewise, but no configuration before the state of all devices
 *     serial             state all at once, configurations one after the other
 *     in line            one device after the other
 */
export type LoadOrder = 'parallel' | 'after-iterables' | 'serial' | 'in line';

/** What it takes to load the devices of a machine. */
export interface LoadCost {
  /** When all their data is there: to prepare what is not prepared yet, check state, load configurations, run; ms. */
  readonly ms: number;
  /** How fast the slowest device takes its data, bytes a ms; Infinity if nothing is known. */
  readonly bytesPerMs: number;
}

/** Parallel channels, as a device's state goes out on them: buffers of shared memory that are filled and given away. */
export interface OutgoingState {
  /** A free buffer, of the size of a packet at most; the caller's until `send` or `drop`. */
  buffer(): Promise<StateRoom>;
  /** The device's next packet: the first `length` bytes. `isConfig`: its configuration, the last one. */
  send(room: StateRoom, length: number, isConfig: boolean): Promise<void>;
  /** It is not needed after all. */
  drop(room: StateRoom): void;
}

export interface StateRoom {
  readonly bytes: Buffer;
}

/** The buffers of one device as they come from parallel channels, in order; one at a time. */
export interface IncomingState {
  next(): Promise<IncomingBuffer>;
}

export interface IncomingBuffer {
  readonly bytes: Buffer;
  readonly isConfig: boolean;
  /** When all of it was in memory, monotonic ms. */
  readonly arrivedMs: number;
  release(): void;
}

/** A device as sections name it. */
export interface SectionName {
  readonly idstr: string;
  readonly instance: number;
}

/** A section that is sent in START, PART and END pieces beside RAM. What it gives away is valid until its next call. */
export interface SourceIterable {
  readonly idstr: string;
  readonly instance: number;
  readonly version: number;
  /** Body of START. With `switchoverAck` it announces (INIT_DATA_SENT) when all is out that the destination needs to prepare itself. */
  setup(options: { readonly switchoverAck: boolean }): Promise<Uint8Array>;
  /** As last known, or asked for again (`exact`). */
  pending(exact: boolean): Promise<PendingBytes>;
  /** Body of the next PART, or undefined if there is nothing to send now. `announce`: it may say now that its initial data is out, if it is. */
  iterate(announce: boolean): Promise<Uint8Array | undefined>;
  /** Machine stopped: the body of END, piece by piece, each given away until `put` has settled. */
  complete(put: (bytes: Uint8Array) => Promise<void>): Promise<void>;
  /**
   * Machine stopped: all that is left, its FULL section too, goes on parallel channels; `complete` and that section are empty then. Absent: it cannot.
   */
  completeBeside?(channels: OutgoingState): Promise<void>;
  /** With `switchoverAck`. */
  readonly initialData?: InitialData | undefined;
  /** The migration is over, well or badly. */
  cleanup(): Promise<void>;
}

/** Where a device stands with what its destination needs to prepare itself. */
export interface InitialData {
  /** It has such data, in this migration. */
  readonly own: boolean;
  /** How often it has announced; more than once if new initial data has come up. */
  readonly announced: number;
  /** It has not announced what it has now. */
  readonly isDue: boolean;
}

/** Part of loading a device that goes on beside the stream. */
export interface LoadTask {
  /** For messages and time lines. */
  readonly name: string;
  readonly kind: 'state' | 'config';
  /** It changes what all devices share (the address space): it needs the machine lock. */
  readonly lock: boolean;
  /** Starts only when this is done; it is not done if it fails. */
  readonly after?: Promise<void>;
  run(): Promise<void>;
}

/** What a machine may ask of the engine that fills it. */
export interface LoadEngine {
  /** Aborted when the migration has failed. */
  readonly signal: AbortSignal;
  /** Settles with the task, and fails the migration with it. Nothing is committed, and no PING answered, before all tasks are done. */
  run(task: LoadTask): Promise<void>;
  failed(error: Error): void;
  /** The section's initial data (switchover-ack) is loaded: its device is ready for the switchover. */
  initialDataLoaded(section: SectionName): void;
}

/** A page that somebody waits for. */
export interface PageFault {
  /** Undefined: no vCPU, but the machine itself wants it. */
  readonly vcpu: number | undefined;
  /** In the order announced. */
  readonly block: number;
  /** Target page of the block. */
  readonly page: number;
  /** When the wait began: ns of the host's monotonic clock. */
  readonly sinceNs: number;
}

/**
 * RAM that is not all there when the machine goes on (postcopy). Pages are target pages, `block` is the place in the announced order; ranges
 * are whole host pages. Bytes of a page that is not there may be put into the sink at any time: nobody looks at them before `place`.
 */
export interface MissingRam {
  /** Host pages of each block, bytes: what is dropped, asked for and placed as a whole. */
  readonly pageSizes: readonly number[];
  readonly vcpuCount: number;
  /** The machine runs as soon as its devices are there. If not (a file), it is committed when all pages are. */
  readonly runsEarly: boolean;
  /** These pages are not there. Only before `begin`; all others are. */
  drop(block: number, page: number, count: number): void;
  /** Resolves when the machine may run: from now on whoever needs a page that is not there waits for it, and `fault` is told. */
  begin(fault: (fault: PageFault) => void): Promise<void>;
  /** All bytes of these pages are in the sink: they are there, and who waits for them goes on. */
  place(block: number, page: number, count: number): void;
  /** Every page is there. */
  end(): Promise<void>;
}

/** RAM while it is filled: on the event loop, page by page. */
export interface IncomingRam extends RamSink {
  /**
   * The same RAM for threads, its blocks in the order in which they were announced. From this call on threads may put pages into it too; the sink
   * relies no more on what it has seen itself, and what it is given is in place when it returns. Throws as the machine's prepareRam.
   */
  share(): SharedRam;
}

/** A machine that can be filled by the engine. */
export interface DestinationMachine {
  readonly targetPageSize: number;
  /** Own machine type, if it is fixed; a checkpoint takes any. */
  readonly machineType: string | undefined;
  readonly uuid: Uint8Array | undefined;
  readonly runState: RunState;

  /** The stream's configuration; throws if this machine cannot be that one. Type and uuid are checked by the engine already. */
  configure(configuration: Configuration, engine: LoadEngine): Promise<void>;
  /** Called once. The sink's block index is the index in `blocks`. Throws if blocks are missing, unknown or of another size. */
  prepareRam(blocks: readonly AnnouncedBlock[], options: { ignoreShared: boolean }): Promise<IncomingRam>;
  /** For postcopy: called at most once, after prepareRam. Absent: this machine wants all of its RAM before it goes on. */
  readonly missingRam?: (() => MissingRam) | undefined;
  /** Called between batches of pages: resolves when buffers are low enough to take more; undefined if they are. */
  drain(): Promise<void> | undefined;
  /** One whole device section. Throws if the device is unknown or the state does not fit it. */
  loadDevice(section: SectionHeader, body: Buffer): Promise<void>;
  /** The next element of an iterable's section other than RAM; data comes in pieces. Throws if the device is unknown or cannot take it. */
  loadElement(section: SectionHeader, element: VfioElement): Promise<void>;
  /** Its memory, if it knows it before the stream says so. */
  readonly ram?: readonly RamBlock[];
  readonly devices?: readonly MachineDevice[];
  /** A part of it that has not answered for a while, for people. */
  readonly waitingFor?: string | undefined;
  /** Devices whose state may come on parallel channels. */
  readonly besideDevices?: readonly SectionName[];
  /** What is still to be done here once everything has come, as it looks now. Absent: nothing to speak of. */
  loadCost?(order: LoadOrder): Promise<LoadCost>;
  /** Of its devices. */
  deviceFigures?(): Promise<readonly DeviceFigures[]>;
  /** Where its RAM goes to a file: bytes that the file system has left. Throws what asking it throws. */
  freeSpace?(): Promise<number>;
  /** Devices that prepare themselves when their initial data comes: the source had better wait for them (switchover-ack). */
  readonly switchoverAckNeeded?: readonly SectionName[];
  /** The guest has stopped at the source (SWITCHOVER_START): the device's state comes from there, if it does not come in the stream. */
  loadBeside?(device: SectionName, state: IncomingState): void;
  /** Number of bytes of the section's body at the start of `bytes`, if the machine knows the device's layout; else undefined. */
  measureDevice(section: SectionHeader, bytes: Buffer): number | undefined;
  /** The stream's self-description, as sent (may be empty). All sections are loaded. */
  describe(description: string): Promise<void>;
  /** Everything has arrived: make it last (checkpoint: synced and renamed; memory: adopt). After this the machine may start. */
  commit(): Promise<void>;
  /**
   * Run as the source's global state says (running or paused). Only after commit. Machines that do not run return at once. If it throws, the guest has
   * not run here: `discard` follows, and the source has it back.
   */
  start(): Promise<void>;
  /** The migration failed: drop all that came, and be quiet. Nothing that looks whole stays behind. Never throws. */
  discard(): Promise<void>;
}
