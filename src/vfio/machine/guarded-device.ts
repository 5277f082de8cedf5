/**
 * A device whose every call ends: one that does not answer in time is given up, that is closed, and whoever waits for it hears so. Nothing can be
 * said about a device that is silent, so nothing is tried with it any more.
 */
import { nowMs } from '../../base/index.ts';
import type {
  ArcLatency,
  DeviceConfig,
  DeviceFeatures,
  DmaRange,
  LoadFigures,
  PrecopyInfo,
  ReadResult,
  TransitionOptions,
  VfioDevice,
} from '../device.ts';
import { type DeviceOperation, deviceGone, ERRNO, isVfioError, vfioError } from '../errors.ts';
import type { DeviceState } from '../states.ts';

export interface DeviceDeadlines {
  /** Arcs and reset, ms. */
  readonly transitionMs: number;
  /** Data: a device may allocate what it needs when the first bytes come, ms. */
  readonly dataMs: number;
  /** Everything else, ms. */
  readonly answerMs: number;
}

/** Where nobody says otherwise; the settings' defaults are these. */
export const DEVICE_DEADLINES: DeviceDeadlines = { transitionMs: 60_000, dataMs: 60_000, answerMs: 20_000 };

/** A device that does not answer for so long is waited for: query-migrate shows it, ms. */
const NOTICEABLE_MS = 1_000;

/** A migration takes about a dozen; attempts that were too late add some. */
const ARCS_KEPT = 64;

/** A device, and what a VMM keeps of it. */
export type MigratableDevice = VfioDevice & DeviceConfig;

export class GuardedDevice implements MigratableDevice {
  readonly #device: MigratableDevice;
  readonly #deadlines: DeviceDeadlines;
  /** Given up, or known to be gone. */
  #lost = false;
  /** Why it was given up. */
  #silence: Error | undefined;
  #arcs: ArcLatency[] = [];
  /** Asked, and not answered yet, in order. */
  readonly #asked = new Set<{ readonly operation: DeviceOperation; readonly sinceMs: number }>();

  constructor(device: MigratableDevice, deadlines: DeviceDeadlines) {
    this.#device = device;
    this.#deadlines = deadlines;
  }

  get name(): string {
    return this.#device.name;
  }

  get features(): DeviceFeatures {
    return this.#device.features;
  }

  get needsMachineLock(): boolean {
    return this.#device.needsMachineLock;
  }

  get loadFigures(): LoadFigures | undefined {
    return this.#device.loadFigures;
  }

  get lost(): boolean {
    return this.#lost;
  }

  /** The last arcs that it took, and how long each lasted. */
  get arcs(): readonly ArcLatency[] {
    return this.#arcs;
  }

  /** A migration begins. */
  /** What it has been asked for a while ago and not answered yet. */
  get waitingFor(): string | undefined {
    const [oldest] = this.#asked;
    if (oldest === undefined || nowMs() - oldest.sinceMs < NOTICEABLE_MS) return undefined;
    return `device ${this.name}: ${oldest.operation}`;
  }

  clearArcs(): void {
    this.#arcs = [];
  }

  state(): Promise<DeviceState> {
    return this.#within('get state', this.#device.state(), this.#deadlines.answerMs);
  }

  async setState(target: DeviceState, options?: TransitionOptions): Promise<readonly ArcLatency[]> {
    const arcs = await this.#within('set state', this.#device.setState(target, options), this.#deadlines.transitionMs);
    this.#arcs = [...this.#arcs, ...arcs].slice(-ARCS_KEPT);
    return arcs;
  }

  estimate(target: DeviceState): Promise<number | undefined> {
    return this.#within('estimate', this.#device.estimate(target), this.#deadlines.answerMs);
  }

  read(into: Buffer): Promise<ReadResult> {
    return this.#within('read data', this.#device.read(into), this.#deadlines.dataMs);
  }

  write(bytes: Buffer): Promise<void> {
    return this.#within('write data', this.#device.write(bytes), this.#deadlines.dataMs);
  }

  precopyInfo(): Promise<PrecopyInfo> {
    return this.#within('precopy info', this.#device.precopyInfo(), this.#deadlines.answerMs);
  }

  stopCopySize(): Promise<number> {
    return this.#within('stop-copy size', this.#device.stopCopySize(), this.#deadlines.answerMs);
  }

  startDmaLogging(pageSize: number, ranges: readonly DmaRange[]): Promise<number> {
    return this.#within('start DMA logging', this.#device.startDmaLogging(pageSize, ranges), this.#deadlines.answerMs);
  }

  stopDmaLogging(): Promise<void> {
    return this.#within('stop DMA logging', this.#device.stopDmaLogging(), this.#deadlines.answerMs);
  }

  reportDmaLogging(range: DmaRange, pageSize: number, into: Uint32Array): Promise<void> {
    const report = this.#device.reportDmaLogging(range, pageSize, into);
    return this.#within('report DMA logging', report, this.#deadlines.answerMs);
  }

  reset(): Promise<void> {
    return this.#within('reset', this.#device.reset(), this.#deadlines.transitionMs);
  }

  saveConfig(): Promise<Buffer> {
    return this.#within('save config', this.#device.saveConfig(), this.#deadlines.answerMs);
  }

  loadConfig(bytes: Buffer): Promise<void> {
    return this.#within('load config', this.#device.loadConfig(bytes), this.#deadlines.dataMs);
  }

  close(): Promise<void> {
    this.#lost = true;
    return this.#device.close();
  }

  async #within<T>(operation: DeviceOperation, call: Promise<T>, deadlineMs: number): Promise<T> {
    const asked = { operation, sinceMs: nowMs() };
    this.#asked.add(asked);
    let timer: NodeJS.Timeout | undefined;
    const silent = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        const fault = {
          code: 'VFIO_SILENT',
          device: this.name,
          errno: ERRNO.ETIMEDOUT,
          operation,
          deadlineMs,
        } as const;
        const why = `${this.name}: ${operation}: no answer in ${deadlineMs} ms; the device is given up`;
        this.#silence ??= vfioError(fault, why);
        reject(this.#silence);
        void this.close();
      }, deadlineMs);
    });
    try {
      return await Promise.race([call, silent]);
    } catch (error) {
      if (!isVfioError(error) || error.code !== 'VFIO_GONE') throw error;
      this.#lost = true;
      throw this.#silence === undefined ? error : deviceGone(this.name, operation, this.#silence);
    } finally {
      this.#asked.delete(asked);
      clearTimeout(timer);
    }
  }
}
