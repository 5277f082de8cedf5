/**
 * The emulated VF as hardware: state that it changes while it runs, DMA into guest memory, writes to a peer device, a BAR and a configuration
 * space. It knows no migration: what it does of its own is its activity, which others set. Whoever owns it calls `tick` often while it is active.
 */
import { DmaLog, type DmaPort, DmaProgram, NO_DMA, SharedDma } from './dma.ts';
import { VF_PAGE_BYTES, type VfOptions } from './options.ts';
import { Pace } from './pace.ts';
import { PciConfig } from './pci-config.ts';
import { Peer } from './peer.ts';
import { BAR_BYTES, REGISTERS, Register } from './stream-format.ts';
import { VfState, type VfVerdict } from './vf-state.ts';

/** PCI_CONFIG of VFIO. */
const CONFIG_REGION = 7;

/** What the device does of its own. */
export type Activity = 'all' | 'no DMA' | 'none';

/** All that can be asked about a stopped device whether it is what it should be. */
export interface HardwareEvidence {
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
}

export interface HardwareParts {
  readonly options: VfOptions;
  /** Guest address of its DMA memory. */
  readonly dmaIova: number;
  /** Monotonic ms. */
  readonly now: () => number;
  /** Told whenever it begins or ends to do something of its own: only then `tick` is needed. */
  readonly activeChanged?: (active: boolean) => void;
}

export class Hardware {
  readonly state: VfState;
  readonly peer = new Peer();
  readonly pci: PciConfig;
  readonly dmaLog: DmaLog;
  readonly #bar = Buffer.alloc(BAR_BYTES);
  readonly #options: VfOptions;
  readonly #now: () => number;
  readonly #activeChanged: (active: boolean) => void;
  readonly #dma: DmaProgram;
  readonly #statePace: Pace;
  readonly #dmaPace: Pace;
  readonly #peerPace: Pace;
  #port: DmaPort = NO_DMA;
  #activity: Activity = 'none';
  /** Of ports that it had before. */
  #dmaFailuresBefore = 0;

  /** Fresh, and not active. */
  constructor({ options, dmaIova, now, activeChanged = () => {} }: HardwareParts) {
    this.#options = options;
    this.#now = now;
    this.#activeChanged = activeChanged;
    const { seed } = options;
    this.state = new VfState(options['state-size'], options['working-set'], seed);
    this.state.fill();
    this.#dma = new DmaProgram(dmaIova, options['dma-size'], seed);
    this.dmaLog = new DmaLog(dmaIova, options['dma-size']);
    this.pci = new PciConfig(seed);
    const perMs = (rate: number) => rate / VF_PAGE_BYTES / 1000;
    this.#statePace = new Pace(perMs(options['state-rate']), now());
    this.#dmaPace = new Pace(perMs(options['dma-rate']), now());
    this.#peerPace = new Pace(options['peer-rate'] / 1000, now());
  }

  get activity(): Activity {
    return this.#activity;
  }

  /** What it has not done until now it does not do any more. */
  act(activity: Activity): void {
    const before = this.#activity;
    this.#activity = activity;
    this.peer.open(activity !== 'none');
    if ((before === 'none') === (activity === 'none')) return;
    if (before === 'none') this.#skip();
    this.#activeChanged(activity !== 'none');
  }

  /** Does what is due. */
  tick(): void {
    if (this.#activity === 'none') return;
    const now = this.#now();
    this.state.run(this.#statePace.due(now));
    const dmaOperations = this.#dmaPace.due(now);
    const peerOperations = this.#peerPace.due(now);
    if (this.#activity !== 'all') return;
    if (this.#port !== NO_DMA) this.#dma.run(dmaOperations, this.#port, this.dmaLog);
    this.peer.send(peerOperations);
  }

  /** Resolves when all that it has written to guest memory is there. */
  drained(): Promise<void> {
    return this.#port.drained();
  }

  /** Guest memory in place of what it had before. */
  attach(port: DmaPort): void {
    this.#dmaFailuresBefore += this.#port.failures;
    this.#port = port;
  }

  /** As new, but for its memory and its peer. */
  reset(): void {
    const { seed } = this.#options;
    this.state.seed = seed;
    this.state.fill();
    this.#dma.restart(seed, 0);
    this.dmaLog.end();
    this.#bar.fill(0);
    this.pci.reset();
    this.peer.restart(0, 0);
    this.#dmaFailuresBefore = 0;
  }

  /** BAR 0 and the configuration space; undefined: there is no such region. */
  regionBytes(index: number): number | undefined {
    return this.#region(index)?.length;
  }

  /** Inside the region. */
  readRegion(index: number, offset: number, into: Buffer): void {
    this.#region(index)?.copy(into, 0, offset);
  }

  /** Inside the region, as a guest does it. */
  writeRegion(index: number, offset: number, bytes: Buffer): void {
    if (index === CONFIG_REGION) this.pci.write(offset, bytes);
    else bytes.copy(this.#bar, offset);
  }

  #region(index: number): Buffer | undefined {
    if (index === 0) return this.#bar;
    return index === CONFIG_REGION ? this.pci.bytes : undefined;
  }

  /** BAR and registers, as the stream has them. */
  registers(): Buffer {
    const values = new Float64Array(REGISTERS);
    values[Register.OPERATIONS] = this.state.operations;
    values[Register.DMA_OPERATIONS] = this.#dma.operations;
    values[Register.DMA_FAILURES] = this.#dmaFailures;
    values[Register.PEER_SENT] = this.peer.sent;
    values[Register.PEER_RECEIVED] = this.peer.received;
    return Buffer.concat([this.#bar, Buffer.from(values.buffer)]);
  }

  /** Goes on where the device was whose registers these are; its state is here already. */
  adopt(registers: Buffer): void {
    registers.copy(this.#bar, 0, 0, BAR_BYTES);
    const register = (index: number) => registers.readDoubleLE(BAR_BYTES + 8 * index);
    this.state.operations = register(Register.OPERATIONS);
    this.#dma.restart(this.state.seed, register(Register.DMA_OPERATIONS));
    this.#dmaFailuresBefore = register(Register.DMA_FAILURES) - this.#port.failures;
    this.peer.restart(register(Register.PEER_SENT), register(Register.PEER_RECEIVED));
  }

  /** It must not be active, or it changes while it is looked at. */
  evidence(): HardwareEvidence {
    const port = this.#port;
    const workingPages = this.#options['dma-size'] / VF_PAGE_BYTES;
    return {
      state: this.state.verify(),
      dma: port instanceof SharedDma ? port.verify(this.#dma.seed, this.#dma.operations, workingPages) : undefined,
      operations: this.state.operations,
      dmaOperations: this.#dma.operations,
      dmaFailures: this.#dmaFailures,
      peerSent: this.peer.sent,
      peerReceived: this.peer.received,
      peerLate: this.peer.late,
    };
  }

  get #dmaFailures(): number {
    return this.#dmaFailuresBefore + this.#port.failures;
  }

  /** Time in which it was not active makes nothing due. */
  #skip(): void {
    const now = this.#now();
    for (const pace of [this.#statePace, this.#dmaPace, this.#peerPace]) pace.skip(now);
  }
}
