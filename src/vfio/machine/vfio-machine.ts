/**
 * A machine with VFIO devices: the machine that it is made of, and its devices around it. The engine sees one machine; what the devices
 * add is here:
 *
 *     stop      vCPUs, then all devices quiet (P2P), then all stopped (GuestStop)         resume, start   the same way back
 *     log       what devices have logged themselves is put to what the machine's log knows, at every harvest
 *     stream    a section for each device (OutgoingDevice, IncomingDevice), its configuration among the FULL sections
 */
import type {
  AnnouncedBlock,
  DestinationMachine,
  DeviceFigures,
  DeviceSection,
  DirtyLog,
  IncomingRam,
  IncomingState,
  LoadCost,
  LoadEngine,
  LoadOrder,
  MachineDevice,
  PageWindow,
  RamBlock,
  RunState,
  SavedDevices,
  SectionName,
  SharedRam,
  SourceIterable,
  SourceMachine,
  SwitchoverCost,
} from '../../machine/index.ts';
import type { Configuration, SectionHeader, VfioElement } from '../../wire/index.ts';
import { ERRNO, vfioError } from '../errors.ts';
import { DeviceDirtyLog } from './device-dirty-log.ts';
import { figuresOf, toLoadHere, toLoadThere } from './device-figures.ts';
import { type DeviceReport, reportOf } from './device-report.ts';
import { DEVICE_DEADLINES, type DeviceDeadlines, GuardedDevice } from './guarded-device.ts';
import { GuestStop } from './guest-stop.ts';
import { IncomingDevice } from './incoming-device.ts';
import { LoadRecord, loadCostOf } from './load-record.ts';
import { OutgoingDevice } from './outgoing-device.ts';
import { DeviceRecovery, freshDevices } from './recovery.ts';
import { startDevices, together } from './running.ts';
import type { PluggedDevice, Slot } from './slot.ts';
import { Spans } from './spans.ts';
import { addOldStyleSections } from './vmdesc.ts';

/** A machine that devices are plugged into. */
export interface DeviceHost extends SourceMachine, DestinationMachine {
  readonly ram: readonly RamBlock[];
  readonly machineType: string;
  readonly uuid: Uint8Array | undefined;
  readonly targetPageSize: number;
  readonly runState: RunState;
  /** What `start` will do; known after commit. */
  readonly startsAs: RunState | undefined;
}

export class VfioMachine implements DeviceHost {
  readonly #host: DeviceHost;
  readonly #slots: readonly Slot[];
  readonly #dirtyLog: DeviceDirtyLog;
  readonly #spans = new Spans();
  readonly #recovery = new DeviceRecovery();
  readonly #stop: GuestStop;

  /** Devices write to memory by themselves, whether it is there or not. */
  readonly missingRam: DeviceHost['missingRam'];

  private constructor(host: DeviceHost, devices: readonly PluggedDevice[], deadlines: DeviceDeadlines) {
    this.#host = host;
    this.missingRam = devices.length === 0 && host.missingRam !== undefined ? () => host.missingRam!() : undefined;
    this.#slots = devices.map((plugged) => {
      const device = new GuardedDevice(plugged.device, deadlines);
      const outgoing = new OutgoingDevice(device, plugged.idstr, plugged.instance, this.#spans, () =>
        this.#recovery.settle(device, () => (this.runState === 'running' ? 'RUNNING' : 'STOP')),
      );
      return { ...plugged, device, outgoing, record: new LoadRecord(device), incoming: undefined };
    });
    this.#stop = new GuestStop(host, this.#slots);
    this.#dirtyLog = new DeviceDirtyLog(host, () => this.#devices);
  }

  /** The devices are the machine's from now on, but whoever has made them closes them. */
  static async plug(
    host: DeviceHost,
    devices: readonly PluggedDevice[],
    deadlines: DeviceDeadlines = DEVICE_DEADLINES,
  ): Promise<VfioMachine> {
    const machine = new VfioMachine(host, devices, deadlines);
    if (host.runState !== 'inmigrate') await machine.#connectMemory();
    return machine;
  }

  /** What the devices are like, and what they did in the last migration. */
  async reports(): Promise<readonly DeviceReport[]> {
    return await Promise.all(this.#slots.map((slot) => reportOf(slot, this.#recovery, this.#spans)));
  }

  get machineType(): string {
    return this.#host.machineType;
  }

  get uuid(): Uint8Array | undefined {
    return this.#host.uuid;
  }

  get targetPageSize(): number {
    return this.#host.targetPageSize;
  }

  get ram(): readonly RamBlock[] {
    return this.#host.ram;
  }

  get runState(): RunState {
    return this.#host.runState;
  }

  get waitingFor(): string | undefined {
    for (const device of this.#devices) if (device.waitingFor !== undefined) return device.waitingFor;
    return undefined;
  }

  get startsAs(): RunState | undefined {
    return this.#host.startsAs;
  }

  window(block: number, page: number): PageWindow | Promise<PageWindow> {
    return this.#host.window(block, page);
  }

  sharedRam(): SharedRam {
    return this.#host.sharedRam();
  }

  get dirtyLog(): DirtyLog | undefined {
    return this.#host.dirtyLog === undefined ? undefined : this.#dirtyLog;
  }

  get iterables(): readonly SourceIterable[] {
    return [...this.#host.iterables, ...this.#slots.map(({ outgoing }) => outgoing)];
  }

  stop(state: RunState): Promise<void> {
    return this.#stop.stop(state);
  }

  stopWithin(state: RunState, deadlineMs: number): Promise<Error | undefined> {
    return this.#stop.stopWithin(state, deadlineMs);
  }

  async switchoverCost(order: LoadOrder): Promise<SwitchoverCost> {
    const { quietMs, restMs } = await this.#stop.estimate();
    const stopMs = quietMs + restMs;
    const load = loadCostOf(
      this.#slots.map((slot) => toLoadThere(slot, stopMs)),
      order,
    );
    return { stopMs, load };
  }

  async loadCost(order: LoadOrder): Promise<LoadCost> {
    return loadCostOf(this.#slots.map(toLoadHere), order);
  }

  async deviceFigures(): Promise<readonly DeviceFigures[]> {
    return await Promise.all(this.#slots.map(figuresOf));
  }

  /** A device that cannot go on is no reason for the guest to stand: it is reset, or given up. */
  async resume(): Promise<void> {
    await startDevices(this.#devices, (device, target) => this.#recovery.bring(device, target));
    for (const { outgoing } of this.#slots) outgoing.restarted();
    await this.#host.resume();
  }

  setRunState(state: RunState): void {
    this.#host.setRunState(state);
  }

  throttle(percentage: number): void {
    this.#host.throttle(percentage);
  }

  async saveDevices(): Promise<SavedDevices> {
    const { sections, description } = await this.#host.saveDevices();
    const own: DeviceSection[] = [];
    for (const { outgoing } of this.#slots) own.push(await outgoing.saveConfig());
    return {
      sections: [...sections, ...own],
      description: description === undefined ? undefined : addOldStyleSections(description, own),
    };
  }

  async configure(configuration: Configuration, engine: LoadEngine): Promise<void> {
    await this.#host.configure(configuration, engine);
    for (const slot of this.#slots) {
      slot.incoming = new IncomingDevice(slot.device, engine, this.#spans, slot.record);
    }
  }

  async prepareRam(blocks: readonly AnnouncedBlock[], options: { ignoreShared: boolean }): Promise<IncomingRam> {
    const ram = await this.#host.prepareRam(blocks, options);
    // A fresh device runs: with memory in its reach it would write to what the stream is about to fill.
    // One that was not made fresh after the last try is now, or this one fails.
    await together(this.#devices, async (device) => {
      if ((await device.state()) !== 'RUNNING') await device.reset();
      await device.setState('RESUMING');
    });
    await this.#connectMemory();
    return ram;
  }

  drain(): Promise<void> | undefined {
    return this.#host.drain();
  }

  loadDevice(section: SectionHeader, body: Buffer): Promise<void> {
    return this.#host.loadDevice(section, body);
  }

  measureDevice(section: SectionHeader, bytes: Buffer): number | undefined {
    return this.#host.measureDevice(section, bytes);
  }

  loadElement(section: SectionHeader, element: VfioElement): Promise<void> {
    const slot = this.#slots.find(({ idstr, instance }) => idstr === section.idstr && instance === section.instance);
    if (slot?.incoming !== undefined) return slot.incoming.take(section, element);
    const name = `${section.idstr}/${section.instance}`;
    const fault = { code: 'VFIO_UNKNOWN', device: name, errno: ERRNO.ENODEV } as const;
    throw vfioError(fault, `section ${name}: this machine has no such VFIO device`);
  }

  get besideDevices(): readonly SectionName[] {
    return this.#slots.map(({ idstr, instance }) => ({ idstr, instance }));
  }

  get devices(): readonly MachineDevice[] {
    return this.#slots.map(({ device: { name, features }, idstr, instance }) => {
      const { states, precopyInfo, deadlines } = features;
      const initialData = states.preCopy && precopyInfo;
      return { name, idstr, instance, precopy: states.preCopy, p2p: states.p2p, initialData, deadlines };
    });
  }

  get switchoverAckNeeded(): readonly SectionName[] {
    return this.devices.filter(({ initialData }) => initialData);
  }

  loadBeside({ idstr, instance }: SectionName, state: IncomingState): void {
    const slot = this.#slots.find((one) => one.idstr === idstr && one.instance === instance);
    slot?.incoming?.loadBeside(state);
  }

  describe(description: string): Promise<void> {
    return this.#host.describe(description);
  }

  /** Throws VFIO_INCOMPLETE if a device's state or configuration has not come. */
  async commit(): Promise<void> {
    for (const { device, incoming } of this.#slots) {
      const missing = incoming === undefined ? 'state and configuration' : incoming.missing;
      if (missing === undefined) continue;
      const fault = { code: 'VFIO_INCOMPLETE', device: device.name, errno: ERRNO.EINVAL, missing } as const;
      throw vfioError(fault, `the stream has no ${missing} of device ${device.name}`);
    }
    await this.#host.commit();
  }

  /** Throws if a device does not start: no vCPU has run then, and the source has all that the guest has. */
  async start(): Promise<void> {
    const running = this.startsAs === 'running' ? this.#slots.map(({ device }) => device) : [];
    const spans = running.map(({ name }) => this.#spans.begin(name, 'start'));
    await startDevices(running, (device, target) => device.setState(target));
    await this.#host.start();
    for (const span of spans) this.#spans.end(span);
  }

  /** Fresh devices for the next try; one that cannot be made fresh in time is given up. */
  async discard(): Promise<void> {
    await this.freshDevices();
    await this.#host.discard();
  }

  /** A stopped machine waits for a migration: its devices are as new ones. */
  async freshDevices(): Promise<void> {
    await freshDevices(this.#devices);
  }

  get #devices(): readonly GuardedDevice[] {
    return this.#slots.map(({ device }) => device).filter((device) => !device.lost);
  }

  async #connectMemory(): Promise<void> {
    await together(this.#slots, async ({ connectMemory }) => connectMemory?.());
  }
}
