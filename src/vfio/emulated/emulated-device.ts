/**
 * The emulated VF itself, on the thread on which it lives: state that it changes while it runs, DMA into guest memory, writes to a peer device,
 * and the migration uAPI over all of it. Its time is that of its cost model. Whoever owns it calls `tick` often while it runs.
 *
 * Operations are served one after the other in the order of the calls. What is running meanwhile is the device's activity.
 */
import { asError } from '../../base/index.ts';
import type {
  ArcLatency,
  DeviceConfig,
  DeviceFeatures,
  DmaRange,
  PrecopyInfo,
  ReadResult,
  VfioDevice,
} from '../device.ts';
import { DmaLogError } from '../dma-log-rules.ts';
import { type DeviceOperation, deviceGone, ERRNO, operationFailed } from '../errors.ts';
import { type Arc, type DeviceState, sessionOf } from '../states.ts';
import { ArcFailure, type ArcWork, DeviceTransitions, type UndoArc } from '../transitions.ts';
import { DmaLog, type DmaPort, DmaProgram, NO_DMA, SharedDma, type SharedWindow } from './dma.ts';
import { arcPoint, type Fault, type FaultPoint, Faults, readWith } from './faults.ts';
import { BadStream, Loader } from './loader.ts';
import { featuresOf, initialBytesOf, VF_PAGE_BYTES, type VfOptions } from './options.ts';
import { type DeviceClock, Pace, realClock, Throughput } from './pace.ts';
import { PciConfig } from './pci-config.ts';
import { Peer } from './peer.ts';
import { Saver, wholeStreamBytes } from './saver.ts';
import { BAR_BYTES, REGISTERS, Register } from './stream-format.ts';
import { VfState, type VfVerdict } from './vf-state.ts';

/** What the device does of its own in a state. */
type Activity = 'all' | 'no DMA' | 'none';

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

export interface EmulatedDeviceParts {
  readonly name: string;
  readonly options: VfOptions;
  /** Guest address of its DMA memory. */
  readonly dmaIova: number;
  readonly clock?: DeviceClock;
  /** Ends the thread (fault `die`). */
  readonly die?: () => void;
}

/** All that can be asked about a stopped device whether it is what it should be. */
export interface DeviceEvidence {
  readonly state: VfVerdict;
  /** Undefined if its DMA memory is not here. */
  readonly dma: VfVerdict | undefined;
  readonly operations: number;
  readonly dmaOperations: number;
  readonly dmaFailures: number;
  readonly peerSent: number;
  readonly peerReceived: number;
  /** Writes of its peer that came when the device was stopped: its peer was not quiet. */
  readonly peerLate: number;
  /** Injected faults that have struck. */
  readonly faults: number;
}

export class EmulatedDevice implements VfioDevice, DeviceConfig {
  readonly name: string;
  readonly features: DeviceFeatures;
  readonly needsMachineLock: boolean;
  readonly peer = new Peer();
  readonly #options: VfOptions;
  readonly #clock: DeviceClock;
  readonly #die: () => void;
  readonly #faults: Faults;
  readonly #state: VfState;
  readonly #dma: DmaProgram;
  readonly #dmaLog: DmaLog;
  readonly #bar = Buffer.alloc(BAR_BYTES);
  readonly #pci: PciConfig;
  readonly #transitions: DeviceTransitions;
  readonly #saving: Throughput;
  readonly #loading: Throughput;
  readonly #statePace: Pace;
  readonly #dmaPace: Pace;
  readonly #peerPace: Pace;
  #port: DmaPort = NO_DMA;
  #saver: Saver | undefined;
  #loader: Loader | undefined;
  #allocated = false;
  #activity: Activity = 'all';
  #dmaFailuresBefore = 0;
  #last: Promise<unknown> = Promise.resolve();
  /** Calls that have not been answered, by how to fail them. */
  readonly #calls = new Map<(error: Error) => void, DeviceOperation>();
  #closed = false;

  constructor(parts: EmulatedDeviceParts) {
    const { name, options, dmaIova, clock = realClock, die = () => {} } = parts;
    this.name = name;
    this.#options = options;
    this.#clock = clock;
    this.#die = die;
    this.#faults = new Faults(options.faults);
    const { seed } = options;
    this.#state = new VfState(options['state-size'], options['working-set'], seed);
    this.#state.fill();
    this.#dma = new DmaProgram(dmaIova, options['dma-size'], seed);
    this.#dmaLog = new DmaLog(dmaIova, options['dma-size']);
    this.#pci = new PciConfig(seed);
    this.#saving = new Throughput(clock, options['save-bandwidth']);
    this.#loading = new Throughput(clock, options['load-bandwidth']);
    const perMs = (rate: number) => rate / VF_PAGE_BYTES / 1000;
    this.#statePace = new Pace(perMs(options['state-rate']), clock.now());
    this.#dmaPace = new Pace(perMs(options['dma-rate']), clock.now());
    this.#peerPace = new Pace(options['peer-rate'] / 1000, clock.now());
    this.needsMachineLock = options['config-lock'];
    this.features = featuresOf(options);
    const work: ArcWork = {
      costMs: (arc) => this.#arcMs(arc),
      undoMs: (arc) => this.#arcMs(arc),
      work: (arc, until) => this.#arc(arc, until),
    };
    const { states, deadlines } = this.features;
    this.#transitions = new DeviceTransitions({ name, states, deadlines, work, now: () => clock.now() });
    this.#act('all');
  }

  /** Does what is due. Called every few ms; also in front of every operation. */
  tick(): void {
    const now = this.#clock.now();
    const stateOperations = this.#statePace.due(now);
    const dmaOperations = this.#dmaPace.due(now);
    const peerOperations = this.#peerPace.due(now);
    if (this.#activity === 'none') return;
    this.#state.run(stateOperations);
    if (this.#activity !== 'all') return;
    if (this.#port !== NO_DMA) this.#dma.run(dmaOperations, this.#port, this.#dmaLog);
    this.peer.send(peerOperations);
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
      return { initialBytes, dirtyBytes, reinit: false };
    });
  }

  stopCopySize(): Promise<number> {
    return this.#serve('stop-copy size', 'stop-copy size', () =>
      this.#saver === undefined ? wholeStreamBytes(this.#options['state-size']) : this.#saver.stopBytes,
    );
  }

  startDmaLogging(pageSize: number, ranges: readonly DmaRange[]): Promise<number> {
    return this.#logging('start DMA logging', () => this.#dmaLog.start(pageSize, ranges));
  }

  stopDmaLogging(): Promise<void> {
    return this.#logging('stop DMA logging', () => this.#dmaLog.stop());
  }

  reportDmaLogging(range: DmaRange, pageSize: number, into: Uint32Array): Promise<void> {
    return this.#logging('report DMA logging', () => this.#dmaLog.report(range, pageSize, into));
  }

  reset(): Promise<void> {
    return this.#serve('reset', 'reset', () => {
      this.#saver = undefined;
      this.#loader = undefined;
      this.#state.seed = this.#options.seed;
      this.#state.fill();
      this.#dma.restart(this.#options.seed, 0);
      this.#dmaLog.end();
      this.#bar.fill(0);
      this.#pci.reset();
      this.peer.restart(0, 0);
      this.#dmaFailuresBefore = 0;
      this.#transitions.wasReset();
      this.#act('all');
    });
  }

  saveConfig(): Promise<Buffer> {
    return this.#serve('save config', 'save config', () => this.#pci.save());
  }

  loadConfig(bytes: Buffer): Promise<void> {
    return this.#serve('load config', 'load config', async () => {
      const why = this.#pci.load(bytes);
      if (why !== undefined) this.#refuse('load config', why);
      await this.#clock.sleep(this.#clock.now() + this.#options['config-load-ms']);
    });
  }

  async close(): Promise<void> {
    this.#act('none');
    this.#closed = true;
    for (const [fail, operation] of this.#calls) fail(deviceGone(this.name, operation));
  }

  /** Memory in this process, in place of what was there before. */
  attachWindow(window: SharedWindow | undefined): Promise<void> {
    return this.attachPort(window === undefined ? NO_DMA : new SharedDma(window, !this.features.dmaLogging));
  }

  attachPort(port: DmaPort): Promise<void> {
    return this.#serve('open', undefined, () => {
      this.#dmaFailuresBefore += this.#port.failures;
      this.#port = port;
    });
  }

  attachPeer(mailbox: SharedArrayBuffer | undefined): Promise<void> {
    return this.#serve('open', undefined, () => this.peer.attach(mailbox));
  }

  /** BAR 0 and the configuration space; other regions are not there. */
  readRegion(index: number, offset: number, into: Buffer): Promise<void> {
    return this.#serve('read region', undefined, () => {
      const region = this.#region('read region', index, offset, into.length);
      region.copy(into, 0, offset);
    });
  }

  writeRegion(index: number, offset: number, bytes: Buffer): Promise<void> {
    return this.#serve('write region', undefined, () => {
      this.#region('write region', index, offset, bytes.length);
      if (index === 0) bytes.copy(this.#bar, offset);
      else this.#pci.write(offset, bytes);
    });
  }

  /** The device must be stopped, or it changes while it is looked at. */
  evidence(): Promise<DeviceEvidence> {
    return this.#serve('open', undefined, () => ({
      state: this.#state.verify(),
      dma:
        this.#port instanceof SharedDma
          ? this.#port.verify(this.#dma.seed, this.#dma.operations, this.#options['dma-size'] / VF_PAGE_BYTES)
          : undefined,
      operations: this.#state.operations,
      dmaOperations: this.#dma.operations,
      dmaFailures: this.#dmaFailures,
      peerSent: this.peer.sent,
      peerReceived: this.peer.received,
      peerLate: this.peer.late,
      faults: this.#faults.struck,
    }));
  }

  get #dmaFailures(): number {
    return this.#dmaFailuresBefore + this.#port.failures;
  }

  #arcMs(arc: Arc): number {
    return this.#options.arcs[`${arc.from}>${arc.to}`] ?? this.#options['arc-ms'];
  }

  /** One arc: quieten first, then time passes, then it takes effect. */
  async #arc(arc: Arc, until: number): Promise<UndoArc> {
    const before = this.#activity;
    const after = ACTIVITY[arc.to];
    this.tick();
    this.#act(MORE[Math.min(MORE.indexOf(before), MORE.indexOf(after))]!);
    try {
      await this.#arcTime(arc, until);
      const undo = this.#takeEffect(arc);
      this.#act(after);
      return async () => {
        await this.#clock.sleep(this.#clock.now() + this.#arcMs(arc));
        undo();
        this.#act(before);
      };
    } catch (thrown) {
      const broken = thrown instanceof ArcFailure && thrown.kind === 'broken';
      if (broken) this.#endSessions();
      this.#act(broken ? 'none' : before);
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
    if (this.#activity !== 'all') await this.#port.drained();
  }

  /** Sessions open and end, what was loaded is adopted. Returns how to take it back. */
  #takeEffect(arc: Arc): () => void {
    const saver = this.#saver;
    const loader = this.#loader;
    const undo = () => {
      this.#saver = saver;
      this.#loader = loader;
      if (arc.from !== 'STOP' && arc.to === 'STOP_COPY') saver?.unstop();
    };
    const from = sessionOf(arc.from);
    const to = sessionOf(arc.to);
    if (from === 'loading' && to === undefined) this.#adopt(loader!);
    if (from !== to) {
      this.#saver = to === 'saving' ? this.#newSaver() : undefined;
      this.#loader = to === 'loading' ? new Loader(this.#state, this.#options['dma-size']) : undefined;
      this.#allocated = false;
    }
    if (arc.to === 'STOP_COPY') this.#saver!.stop();
    return undo;
  }

  #newSaver(): Saver {
    const options = this.#options;
    return new Saver(this.#state, initialBytesOf(options), options['dma-size'], () => this.#registers());
  }

  /** Throws ArcFailure: a stream that is not whole leaves the device in RESUMING. */
  #adopt(loader: Loader): void {
    try {
      loader.finish();
    } catch (thrown) {
      throw new ArcFailure('unchanged', ERRNO.EINVAL, asError(thrown).message);
    }
    const saved = loader.registers!;
    saved.copy(this.#bar, 0, 0, BAR_BYTES);
    const register = (index: number) => saved.readDoubleLE(BAR_BYTES + 8 * index);
    this.#state.operations = register(Register.OPERATIONS);
    this.#dma.restart(this.#state.seed, register(Register.DMA_OPERATIONS));
    this.#dmaFailuresBefore = register(Register.DMA_FAILURES) - this.#port.failures;
    this.peer.restart(register(Register.PEER_SENT), register(Register.PEER_RECEIVED));
  }

  #registers(): Buffer {
    const values = new Float64Array(REGISTERS);
    values[Register.OPERATIONS] = this.#state.operations;
    values[Register.DMA_OPERATIONS] = this.#dma.operations;
    values[Register.DMA_FAILURES] = this.#dmaFailures;
    values[Register.PEER_SENT] = this.peer.sent;
    values[Register.PEER_RECEIVED] = this.peer.received;
    return Buffer.concat([this.#bar, Buffer.from(values.buffer)]);
  }

  async #allocate(): Promise<void> {
    this.#allocated = true;
    await this.#meet('write data', this.#faults.pass('allocate'));
    await this.#clock.sleep(this.#clock.now() + this.#options['allocation-ms']);
  }

  #act(activity: Activity): void {
    this.#activity = activity;
    this.peer.open(activity !== 'none');
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

  #region(operation: DeviceOperation, index: number, offset: number, length: number): Buffer {
    const region =
      index === 0 ? this.#bar : index === 7 ? this.#pci.bytes : this.#refuse(operation, `no region ${index}`);
    if (!(offset >= 0 && offset + length <= region.length)) {
      this.#refuse(operation, `bytes ${offset} to ${offset + length} of region ${index}, which has ${region.length}`);
    }
    return region;
  }

  /** In the order of the calls; ended by `close`. */
  #serve<T>(operation: DeviceOperation, point: FaultPoint | undefined, run: () => T | Promise<T>): Promise<T> {
    if (this.#closed) return Promise.reject(deviceGone(this.name, operation));
    return new Promise((resolve, reject) => {
      this.#calls.set(reject, operation);
      const served = this.#last.then(async () => {
        if (this.#closed) return;
        if (point !== undefined) await this.#meet(operation, this.#faults.pass(point));
        this.tick();
        resolve(await run());
      });
      this.#last = served.catch(reject).finally(() => this.#calls.delete(reject));
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
        this.#act('none');
        throw operationFailed(this.name, operation, fault.errno, 'the device failed');
      case 'fail':
        throw operationFailed(this.name, operation, fault.errno, 'the device refused');
    }
  }

  #refuse(operation: DeviceOperation, why: string): never {
    throw operationFailed(this.name, operation, ERRNO.EINVAL, why);
  }
}
