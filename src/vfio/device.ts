/**
 * A VFIO device as a user of the migration uAPI sees it. The device may live on this thread, in a thread of its own or in another
 * process, so everything is asynchronous. Calls may overlap: a device serves them in the order in which they were made. All throw
 * VfioError, and VFIO_GONE once the device is closed or lost.
 *
 * @spec linux include/uapi/linux/vfio.h
 */
import type { DeviceState, StateOptions } from './states.ts';

/** What a device can do, asked once when it is opened. */
export interface DeviceFeatures {
  readonly states: StateOptions;
  /** DMA_LOGGING_*: it tells which guest memory it has written to. */
  readonly dmaLogging: boolean;
  /** MIG_DATA_SIZE. */
  readonly stopCopySize: boolean;
  /** MIG_PRECOPY_INFO; the kernel's devices have it with PRE_COPY, vfio-user's never. */
  readonly precopyInfo: boolean;
  /** Transitions can be asked for with a deadline. Neither the kernel nor vfio-user has this. */
  readonly deadlines: boolean;
}

export interface TransitionOptions {
  /**
   * Only with feature `deadlines`. ms from the call: by then the device is through (resolved) or fully back in the state it was in
   * (VFIO_DEADLINE_MISSED). If it cannot promise that, from its size and rates, it says so before it does anything (VFIO_DEADLINE_REFUSED).
   */
  readonly deadlineMs?: number;
}

/** How long an arc took inside the device. A device that cannot tell its arcs apart reports one over the whole path. */
export interface ArcLatency {
  readonly from: DeviceState;
  readonly to: DeviceState;
  readonly ms: number;
}

/**
 * Bytes that were read; or 'nothing now', only in PRE_COPY and PRE_COPY_P2P: more may come or never (the uAPI's ENOMSG); or 'end', only in
 * STOP_COPY and from then on for ever: the whole state has been read.
 */
export type ReadResult = number | 'nothing now' | 'end';

/** Estimates. Initial bytes come before dirty bytes in the stream, and neither says how much STOP_COPY will add. */
export interface PrecopyInfo {
  /** Starts above 0 and only falls by reading; at 0 the destination has what it needs to prepare. */
  readonly initialBytes: number;
  /** Starts at 0; grows as the device changes what was read already. */
  readonly dirtyBytes: number;
  /** MIG_PRECOPY_INFOv2: new initial data has appeared since the last call, `initialBytes` may have risen. */
  readonly reinit: boolean;
}

export interface DmaRange {
  /** Guest address, bytes, a multiple of the log's page size. */
  readonly iova: number;
  /** Bytes, a multiple of the log's page size, above 0. */
  readonly length: number;
}

export interface VfioDevice {
  /** For messages: what its owner called it. */
  readonly name: string;
  readonly features: DeviceFeatures;

  state(): Promise<DeviceState>;

  /**
   * Resolves when the device is fully in `target`, with the arcs it took (none if it was there). VFIO_NO_PATH: nothing has happened.
   * VFIO_ARC_FAILED says where the device is now: the state before the arc that failed, or ERROR, which only `reset` leaves.
   * Moving into a session opens its stream, moving out ends it; moving within it changes nothing.
   */
  setState(target: DeviceState, options?: TransitionOptions): Promise<readonly ArcLatency[]>;

  /** What moving from here to `target` takes, ms, as the device knows itself; undefined if it does not know, or cannot go there. */
  estimate(target: DeviceState): Promise<number | undefined>;

  /**
   * The next bytes of the saving session, as many as there are now and fit `into`, at least one. The borders between reads carry no
   * meaning. `into` is the device's until this settles; if it is shared memory a device in another thread fills it in place.
   */
  read(into: Buffer): Promise<ReadResult>;

  /**
   * The next bytes for the loading session, cut as one likes. `bytes` is the device's until this settles. A failure spoils the session:
   * RESUMING can then only be left by `reset`. What is wrong with the stream may show up as late as the arc RESUMING -> STOP.
   */
  write(bytes: Buffer): Promise<void>;

  /** Only in PRE_COPY and PRE_COPY_P2P. Asking also makes some devices save their next increment. */
  precopyInfo(): Promise<PrecopyInfo>;

  /** Bytes that STOP_COPY would have if it were entered now; an estimate, in any state. */
  stopCopySize(): Promise<number>;

  /**
   * Logs writes into these ranges (1 to 256 of them, disjoint) from now on; returns the page size of the log, for which `pageSize` is a hint.
   * EINVAL when it logs already.
   */
  startDmaLogging(pageSize: number, ranges: readonly DmaRange[]): Promise<number>;
  stopDmaLogging(): Promise<void>;
  /**
   * Sets in `into` the bit of every page of the range that was written to since the last report, and clears it in the device. Bit i
   * is the page of `pageSize` bytes (a power of two, 4096 or more) at `iova + i * pageSize`. After an error all memory counts as written.
   */
  reportDmaLogging(range: DmaRange, pageSize: number, into: Uint32Array): Promise<void>;

  /** From any state to RUNNING, with a fresh device; sessions end. */
  reset(): Promise<void>;

  /** Ends everything that is under way with VFIO_GONE, and the device's thread or connection. Never throws. */
  close(): Promise<void>;
}

/** What loading takes, as a device knows it of itself. */
export interface LoadFigures {
  /** Once, when the first data comes, ms. */
  readonly allocationMs: number;
  /** How fast it takes data, bytes a ms; Infinity: as fast as it comes. */
  readonly bytesPerMs: number;
  readonly configMs: number;
}

/**
 * What a VMM keeps of a device beside the device's own state: its configuration as the guest has set it up (PCI config space, MSI-X).
 * It is loaded after all of the device's state, before the guest runs.
 */
export interface DeviceConfig {
  /** The load changes the machine's address space: not two at a time, and not while others hold the machine lock. */
  readonly needsMachineLock: boolean;
  /** Undefined: it does not know. */
  readonly loadFigures?: LoadFigures | undefined;
  /** Machine stopped. */
  saveConfig(): Promise<Buffer>;
  loadConfig(bytes: Buffer): Promise<void>;
}
