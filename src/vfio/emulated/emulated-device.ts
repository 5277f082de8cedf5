/**
 * The emulated VF on the thread on which it lives: the migration uAPI over its hardware, with the time of its cost model and the faults that are
 * injected. Whoever owns it calls `tick` often while it is active.
 *
 * Operations are served one after the other in the order of the calls. What is running meanwhile is the device's activity.
 */
import type {
  ArcLatency,
  DeviceConfig,
  DeviceFeatures,
  DmaRange,
  LoadFigures,
  PrecopyInfo,
  ReadResult,
  VfioDevice,
} from '../device.ts';
import { DmaLogError } from '../dma-log-rules.ts';
import { type DeviceOperation, ERRNO, operationFailed } from '../errors.ts';
import type { DeviceState } from '../states.ts';
import { DeviceTransitions } from '../transitions.ts';
import { EmulatedArcs } from './arcs.ts';
import { CallQueue } from './call-queue.ts';
import { type DmaPort, NO_DMA, SharedDma, type SharedWindow } from './dma.ts';
import { type Fault, type FaultPoint, Faults, NEVER, readWith } from './faults.ts';
import { Hardware, type HardwareEvidence, type HardwareParts } from './hardware.ts';
import { BadStream } from './loader.ts';
import { featuresOf, loadFiguresOf, type VfOptions } from './options.ts';
import { type DeviceClock, realClock, Throughput } from './pace.ts';
import type { Peer } from './peer.ts';
import { wholeStreamBytes } from './saver.ts';
import { Sessions } from './sessions.ts';

export interface EmulatedDeviceParts extends Omit<HardwareParts, 'now'> {
  readonly name: string;
  readonly clock?: DeviceClock;
  /** Ends the thread (fault `die`). */
  readonly die?: () => void;
}

export interface DeviceEvidence extends HardwareEvidence {
  /** Injected faults that have struck. */
  readonly faults: number;
}

export class EmulatedDevice implements VfioDevice, DeviceConfig {
  readonly name: string;
  readonly features: DeviceFeatures;
  readonly needsMachineLock: boolean;
  readonly loadFigures: LoadFigures;
  readonly #hardware: Hardware;
  readonly #options: VfOptions;
  readonly #clock: DeviceClock;
  readonly #die: () => void;
  readonly #faults: Faults;
  readonly #calls: CallQueue;
  readonly #sessions: Sessions;
  readonly #transitions: DeviceTransitions;
  readonly #saving: Throughput;
  readonly #loading: Throughput;

  constructor(parts: EmulatedDeviceParts) {
    const { name, options, clock = realClock, die = () => {} } = parts;
    this.name = name;
    this.#options = options;
    this.#clock = clock;
    this.#die = die;
    this.#faults = new Faults(options.faults);
    this.#calls = new CallQueue(name);
    this.#hardware = new Hardware({ ...parts, now: () => clock.now() });
    this.#saving = new Throughput(clock, options['save-bandwidth']);
    this.#loading = new Throughput(clock, options['load-bandwidth']);
    this.needsMachineLock = options['config-lock'];
    this.features = featuresOf(options);
    this.loadFigures = loadFiguresOf(options);
    this.#sessions = new Sessions(this.#hardware, options, clock);
    const work = new EmulatedArcs({
      hardware: this.#hardware,
      sessions: this.#sessions,
      options,
      faults: this.#faults,
      clock,
      tick: () => this.tick(),
      die,
    });
    const { states, deadlines } = this.features;
    this.#transitions = new DeviceTransitions({ name, states, deadlines, work, now: () => clock.now() });
    this.#hardware.act('all');
  }

  /** What its peer writes to. */
  get peer(): Peer {
    return this.#hardware.peer;
  }

  /** Does what is due. Called every few ms; also in front of every operation. */
  tick(): void {
    this.#hardware.tick();
    this.#sessions.renew();
  }

  /** First of all calls: fails if the device cannot be opened. */
  open(): Promise<void> {
    return this.#serve('open', 'open', () => {});
  }

  state(): Promise<DeviceState> {
    return this.#serve('get state', 'get state', () => this.#transitions.state);
  }

  setState(target: DeviceState, options: { readonly deadlineMs?: number } = {}): Promise<readonly ArcLatency[]> {
    return this.#serve('set state', undefined, () => this.#transitions.setState(target, options.deadlineMs));
  }

  estimate(target: DeviceState): Promise<number | undefined> {
    return this.#serve('estimate', 'estimate', () => this.#transitions.estimate(target));
  }

  read(into: Buffer): Promise<ReadResult> {
    return this.#serve('read data', undefined, async () => {
      const fault = this.#faults.pass('read data');
      await this.#meet('read data', fault);
      const saver = this.#sessions.saver ?? this.#refuse('read data', 'no saving session is open');
      const count = readWith(fault, into, (bytes) => saver.read(bytes));
      if (count > 0) {
        await this.#saving.spend(count);
        return count;
      }
      return this.#transitions.state === 'STOP_COPY' ? 'end' : 'nothing now';
    });
  }

  write(bytes: Buffer): Promise<void> {
    return this.#serve('write data', 'write data', async () => {
      const loader = this.#sessions.loader ?? this.#refuse('write data', 'no loading session is open');
      try {
        loader.write(bytes);
      } catch (thrown) {
        if (thrown instanceof BadStream) this.#refuse('write data', thrown.message);
        throw thrown;
      }
      if (this.#sessions.allocates()) await this.#allocate();
      await this.#loading.spend(bytes.length);
    });
  }

  precopyInfo(): Promise<PrecopyInfo> {
    return this.#serve('precopy info', 'precopy info', () => {
      const { state } = this.#transitions;
      const { saver } = this.#sessions;
      if ((state !== 'PRE_COPY' && state !== 'PRE_COPY_P2P') || saver === undefined) {
        this.#refuse('precopy info', `it is in ${state}`);
      }
      const { initialBytes, dirtyBytes } = saver;
      return { initialBytes, dirtyBytes, reinit: saver.takeRenewed() };
    });
  }

  stopCopySize(): Promise<number> {
    return this.#serve('stop-copy size', 'stop-copy size', () => {
      const { saver } = this.#sessions;
      return saver === undefined ? wholeStreamBytes(this.#options['state-size']) : saver.stopBytes;
    });
  }

  startDmaLogging(pageSize: number, ranges: readonly DmaRange[]): Promise<number> {
    return this.#logging('start DMA logging', () => this.#hardware.dmaLog.start(pageSize, ranges));
  }

  stopDmaLogging(): Promise<void> {
    return this.#logging('stop DMA logging', () => this.#hardware.dmaLog.stop());
  }

  reportDmaLogging(range: DmaRange, pageSize: number, into: Uint32Array): Promise<void> {
    return this.#logging('report DMA logging', () => this.#hardware.dmaLog.report(range, pageSize, into));
  }

  reset(): Promise<void> {
    return this.#serve('reset', 'reset', () => {
      this.#sessions.end();
      this.#hardware.reset();
      this.#transitions.wasReset();
      this.#hardware.act('all');
    });
  }

  saveConfig(): Promise<Buffer> {
    return this.#serve('save config', 'save config', () => this.#hardware.pci.save());
  }

  loadConfig(bytes: Buffer): Promise<void> {
    return this.#serve('load config', 'load config', async () => {
      const why = this.#hardware.pci.load(bytes);
      if (why !== undefined) this.#refuse('load config', why);
      await this.#clock.sleep(this.#clock.now() + this.#options['config-load-ms']);
    });
  }

  async close(): Promise<void> {
    this.#hardware.act('none');
    this.#calls.close();
  }

  /** Memory in this process, in place of what was there before. */
  attachWindow(window: SharedWindow | undefined): Promise<void> {
    return this.attachPort(window === undefined ? NO_DMA : new SharedDma(window, !this.features.dmaLogging));
  }

  attachPort(port: DmaPort): Promise<void> {
    return this.#serve('open', undefined, () => this.#hardware.attach(port));
  }

  attachPeer(mailbox: SharedArrayBuffer | undefined): Promise<void> {
    return this.#serve('open', undefined, () => this.peer.attach(mailbox));
  }

  /** BAR 0 and the configuration space; other regions are not there. */
  readRegion(index: number, offset: number, into: Buffer): Promise<void> {
    return this.#serve('read region', undefined, () => {
      this.#checkRegion('read region', index, offset, into.length);
      this.#hardware.readRegion(index, offset, into);
    });
  }

  writeRegion(index: number, offset: number, bytes: Buffer): Promise<void> {
    return this.#serve('write region', undefined, () => {
      this.#checkRegion('write region', index, offset, bytes.length);
      this.#hardware.writeRegion(index, offset, bytes);
    });
  }

  /** The device must be stopped, or it changes while it is looked at. */
  evidence(): Promise<DeviceEvidence> {
    return this.#serve('open', undefined, () => ({ ...this.#hardware.evidence(), faults: this.#faults.struck }));
  }

  async #allocate(): Promise<void> {
    await this.#meet('write data', this.#faults.pass('allocate'));
    await this.#clock.sleep(this.#clock.now() + this.#options['allocation-ms']);
  }

  #logging<T>(operation: DeviceOperation & FaultPoint, run: () => T): Promise<T> {
    return this.#serve(operation, operation, () => {
      if (!this.features.dmaLogging) {
        throw operationFailed(this.name, operation, ERRNO.ENOTTY, 'it does not log its DMA');
      }
      try {
        return run();
      } catch (thrown) {
        if (!(thrown instanceof DmaLogError)) throw thrown;
        throw operationFailed(this.name, operation, thrown.errno, thrown.message);
      }
    });
  }

  #checkRegion(operation: DeviceOperation, index: number, offset: number, length: number): void {
    const size = this.#hardware.regionBytes(index);
    if (size === undefined) this.#refuse(operation, `no region ${index}`);
    if (!(offset >= 0 && offset + length <= size)) {
      this.#refuse(operation, `bytes ${offset} to ${offset + length} of region ${index}, which has ${size}`);
    }
  }

  /** In the order of the calls; ended by `close`. */
  #serve<T>(operation: DeviceOperation, point: FaultPoint | undefined, run: () => T | Promise<T>): Promise<T> {
    return this.#calls.serve(operation, async () => {
      if (point !== undefined) await this.#meet(operation, this.#faults.pass(point));
      this.tick();
      return await run();
    });
  }

  /** A fault of an operation other than an arc. */
  async #meet(operation: DeviceOperation, fault: Fault | undefined): Promise<void> {
    switch (fault?.kind) {
      case undefined:
      case 'short':
      case 'lose':
      case 'corrupt':
        return;
      case 'slow':
        return await this.#clock.sleep(this.#clock.now() + fault.ms);
      case 'die':
        this.#die();
        return await NEVER;
      case 'hang':
        return await NEVER;
      case 'break':
        this.#transitions.broke();
        this.#sessions.end();
        this.#hardware.act('none');
        throw operationFailed(this.name, operation, fault.errno, 'the device failed');
      case 'fail':
        throw operationFailed(this.name, operation, fault.errno, 'the device refused');
    }
  }

  #refuse(operation: DeviceOperation, why: string): never {
    throw operationFailed(this.name, operation, ERRNO.EINVAL, why);
  }
}
