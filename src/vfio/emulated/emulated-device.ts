/**
 * The emulated VF on the thread on which it lives: the migration uAPI over its hardware, with the time of its cost model and the faults that are
 * injected. Whoever owns it calls `tick` often while it is active.
 *
 * Operations are served one after the other in the order of the calls. What is running meanwhile is the device's activity.
 */
import { asError } from '../../base/index.ts';
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
import { type Arc, type DeviceState, sessionOf } from '../states.ts';
import { ArcFailure, type ArcWork, DeviceTransitions, type UndoArc } from '../transitions.ts';
import { CallQueue } from './call-queue.ts';
import { type DmaPort, NO_DMA, SharedDma, type SharedWindow } from './dma.ts';
import { arcPoint, type Fault, type FaultPoint, Faults, readWith } from './faults.ts';
import { type Activity, Hardware, type HardwareEvidence, type HardwareParts } from './hardware.ts';
import { BadStream, Loader } from './loader.ts';
import { featuresOf, initialBytesOf, loadFiguresOf, type VfOptions } from './options.ts';
import { type DeviceClock, realClock, Throughput } from './pace.ts';
import type { Peer } from './peer.ts';
import { Saver, wholeStreamBytes } from './saver.ts';

const ACTIVITY: Readonly<Record<DeviceState, Activity>> = {
  ERROR: 'none',
  STOP: 'none',
  RUNNING: 'all',
  STOP_COPY: 'none',
  RESUMING: 'none',
  RUNNING_P2P: 'no DMA',
  PRE_COPY: 'all',
  PRE_COPY_P2P: 'no DMA',
};
const MORE: readonly Activity[] = ['none', 'no DMA', 'all'];

/** What a device that hangs waits for; `close` answers its callers. */
const NEVER = new Promise<never>(() => {});

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
  readonly #transitions: DeviceTransitions;
  readonly #saving: Throughput;
  readonly #loading: Throughput;
  #saver: Saver | undefined;
  /** When the initial data of this session will be new, on its clock; undefined: so long after what there is now is out. */
  #renewsAt: number | undefined;
  #loader: Loader | undefined;
  #allocated = false;

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
    const work: ArcWork = {
      costMs: (arc) => this.#arcMs(arc),
      undoMs: (arc) => this.#arcMs(arc),
      work: (arc, until) => this.#arc(arc, until),
    };
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
    if (this.#options['reinit-ms'] > 0) this.#renew();
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
      const saver = this.#saver ?? this.#refuse('read data', 'no saving session is open');
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
      const loader = this.#loader ?? this.#refuse('write data', 'no loading session is open');
      try {
        loader.write(bytes);
      } catch (thrown) {
        if (thrown instanceof BadStream) this.#refuse('write data', thrown.message);
        throw thrown;
      }
      if (loader.begun && !this.#allocated) await this.#allocate();
      await this.#loading.spend(bytes.length);
    });
  }

  precopyInfo(): Promise<PrecopyInfo> {
    return this.#serve('precopy info', 'precopy info', () => {
      const { state } = this.#transitions;
      if ((state !== 'PRE_COPY' && state !== 'PRE_COPY_P2P') || this.#saver === undefined) {
        this.#refuse('precopy info', `it is in ${state}`);
      }
      const { initialBytes, dirtyBytes } = this.#saver;
      return { initialBytes, dirtyBytes, reinit: this.#saver.takeRenewed() };
    });
  }

  stopCopySize(): Promise<number> {
    return this.#serve('stop-copy size', 'stop-copy size', () =>
      this.#saver === undefined ? wholeStreamBytes(this.#options['state-size']) : this.#saver.stopBytes,
    );
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
      this.#endSessions();
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

  #arcMs(arc: Arc): number {
    return this.#options.arcs[`${arc.from}>${arc.to}`] ?? this.#options['arc-ms'];
  }

  /** One arc: quieten first, then time passes, then it takes effect. */
  async #arc(arc: Arc, until: number): Promise<UndoArc> {
    const before = this.#hardware.activity;
    const after = ACTIVITY[arc.to];
    this.tick();
    this.#hardware.act(MORE[Math.min(MORE.indexOf(before), MORE.indexOf(after))]!);
    try {
      await this.#arcTime(arc, until);
      const undo = this.#takeEffect(arc);
      this.#hardware.act(after);
      return async () => {
        await this.#clock.sleep(this.#clock.now() + this.#arcMs(arc));
        undo();
        this.#hardware.act(before);
      };
    } catch (thrown) {
      const broken = thrown instanceof ArcFailure && thrown.kind === 'broken';
      if (broken) this.#endSessions();
      this.#hardware.act(broken ? 'none' : before);
      throw thrown;
    }
  }

  async #arcTime(arc: Arc, until: number): Promise<void> {
    const fault = this.#faults.pass(arcPoint(arc));
    const neededMs = this.#arcMs(arc) + (fault?.kind === 'slow' ? fault.ms : 0);
    const late = new ArcFailure('out of time', ERRNO.ETIMEDOUT, 'it takes longer than there is time');
    if (fault?.kind === 'die') this.#die();
    if (fault?.kind === 'die' || (fault?.kind === 'hang' && until === Number.POSITIVE_INFINITY)) await NEVER;
    // A surprise is one: the device finds out when the time is up.
    const now = this.#clock.now();
    const endsAt = fault?.kind === 'hang' ? Number.POSITIVE_INFINITY : now + neededMs;
    if (now + this.#arcMs(arc) > until) throw late;
    await this.#clock.sleep(Math.min(endsAt, until));
    if (endsAt > until) throw late;
    if (fault?.kind === 'fail') throw new ArcFailure('unchanged', fault.errno, 'the device refused');
    if (fault?.kind === 'break') throw new ArcFailure('broken', fault.errno, 'the device failed');
    if (this.#hardware.activity !== 'all') await this.#hardware.drained();
  }

  /** Sessions open and end, what was loaded is adopted. Returns how to take it back. */
  #takeEffect(arc: Arc): () => void {
    const saver = this.#saver;
    const loader = this.#loader;
    const renewsAt = this.#renewsAt;
    const undo = () => {
      this.#saver = saver;
      this.#loader = loader;
      this.#renewsAt = renewsAt;
      if (arc.from !== 'STOP' && arc.to === 'STOP_COPY') saver?.unstop();
    };
    const from = sessionOf(arc.from);
    const to = sessionOf(arc.to);
    if (from === 'loading' && to === undefined) this.#adopt(loader!);
    if (from !== to) {
      this.#saver = to === 'saving' ? this.#newSaver() : undefined;
      this.#loader = to === 'loading' ? new Loader(this.#hardware.state, this.#options['dma-size']) : undefined;
      this.#allocated = false;
      this.#renewsAt = undefined;
    }
    if (arc.to === 'STOP_COPY') this.#saver!.stop();
    return undo;
  }

  #renew(): void {
    const saver = this.#saver;
    if (saver === undefined || this.#hardware.activity === 'none') return;
    const now = this.#clock.now();
    if (this.#renewsAt === undefined && saver.initialBytes === 0) this.#renewsAt = now + this.#options['reinit-ms'];
    if (this.#renewsAt === undefined || now < this.#renewsAt) return;
    this.#renewsAt = Number.POSITIVE_INFINITY;
    saver.renew();
  }

  #newSaver(): Saver {
    const options = this.#options;
    return new Saver(this.#hardware.state, initialBytesOf(options), options['dma-size'], () =>
      this.#hardware.registers(),
    );
  }

  /** Throws ArcFailure: a stream that is not whole leaves the device in RESUMING. */
  #adopt(loader: Loader): void {
    try {
      loader.finish();
    } catch (thrown) {
      throw new ArcFailure('unchanged', ERRNO.EINVAL, asError(thrown).message);
    }
    this.#hardware.adopt(loader.registers!);
  }

  async #allocate(): Promise<void> {
    this.#allocated = true;
    await this.#meet('write data', this.#faults.pass('allocate'));
    await this.#clock.sleep(this.#clock.now() + this.#options['allocation-ms']);
  }

  #endSessions(): void {
    this.#saver = undefined;
    this.#loader = undefined;
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
        this.#endSessions();
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
