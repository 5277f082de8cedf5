/**
 * A machine with VFIO devices: the machine that it is made of, and its devices around it. The engine sees one machine; what the devices
 * add is here:
 *
 *     stop      vCPUs, then all devices quiet (P2P), then all stopped             resume, start   the same way back
 *     log       what devices have logged themselves is put to what the machine's log knows, at every harvest
 *     stream    a section for each device (OutgoingDevice, IncomingDevice), its configuration among the FULL sections
 */
import { asError, explain, nowMs } from '../../base/index.ts';
import type {
  AnnouncedBlock,
  DestinationMachine,
  DeviceSection,
  DirtyLog,
  IncomingRam,
  IncomingState,
  LoadCost,
  LoadEngine,
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
import type { ArcLatency, DeviceFeatures } from '../device.ts';
import { ERRNO, operationFailed, vfioError } from '../errors.ts';
import type { DeviceState } from '../states.ts';
import { DeviceDirtyLog } from './device-dirty-log.ts';
import { DEVICE_DEADLINES, type DeviceDeadlines, GuardedDevice, type MigratableDevice } from './guarded-device.ts';
import { IncomingDevice } from './incoming-device.ts';
import { type DeviceToLoad, LoadRecord, loadCostOf } from './load-record.ts';
import { OutgoingDevice } from './outgoing-device.ts';
import {
  AFTER_SAVING,
  isLate,
  type StopDeadline,
  type Stopping,
  startDevices,
  stopDevices,
  stopEstimate,
  together,
  tooLate,
  unstopDevices,
} from './running.ts';
import { type Span, Spans } from './spans.ts';
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

export interface PluggedDevice {
  readonly device: MigratableDevice;
  /** Name of its section: the path of its slot, and `/vfio`. */
  readonly idstr: string;
  readonly instance: number;
  /** Called whenever the machine has got its memory: from then on the device can reach it. */
  readonly connectMemory?: () => Promise<void>;
}

export interface DeviceReport {
  readonly name: string;
  readonly idstr: string;
  readonly features: DeviceFeatures;
  /** Undefined: it is gone. */
  readonly state: DeviceState | undefined;
  /** Bytes that it would save if it were stopped now, if it can tell. */
  readonly stateBytes: number | undefined;
  /** Initial data when its last migration began here, bytes; undefined: it had none, or could not tell. */
  readonly initialBytes: number | undefined;
  readonly resets: number;
  /** Of the last migration. */
  readonly spans: readonly Span[];
  /** State transitions of the last migration, in their order. */
  readonly arcs: readonly ArcLatency[];
}

interface Slot extends PluggedDevice {
  readonly device: GuardedDevice;
  readonly outgoing: OutgoingDevice;
  readonly record: LoadRecord;
  incoming: IncomingDevice | undefined;
}

interface StoppingSlot extends Stopping {
  readonly outgoing: OutgoingDevice;
}

/** A migration that has failed does not wait longer than this for devices to become fresh again, ms. */
const DISCARD_MS = 5_000;

export class VfioMachine implements DeviceHost {
  readonly #host: DeviceHost;
  readonly #slots: readonly Slot[];
  readonly #dirtyLog: DeviceDirtyLog;
  readonly #spans = new Spans();
  /** Devices that had to be reset after a failure, each time: their state was lost. */
  readonly #resets: string[] = [];

  /** Devices write to memory by themselves, whether it is there or not. */
  readonly missingRam: DeviceHost['missingRam'];

  private constructor(host: DeviceHost, devices: readonly PluggedDevice[], deadlines: DeviceDeadlines) {
    this.#host = host;
    this.missingRam = devices.length === 0 && host.missingRam !== undefined ? () => host.missingRam!() : undefined;
    this.#slots = devices.map((plugged) => {
      const device = new GuardedDevice(plugged.device, deadlines);
      const outgoing = new OutgoingDevice(device, plugged.idstr, plugged.instance, this.#spans, () =>
        this.#settle(device),
      );
      return { ...plugged, device, outgoing, record: new LoadRecord(device), incoming: undefined };
    });
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
    return await Promise.all(this.#slots.map((slot) => this.#report(slot)));
  }

  async #report({ device, idstr, outgoing }: Slot): Promise<DeviceReport> {
    const { features, name } = device;
    const state = device.lost ? undefined : await device.state().catch(() => undefined);
    const known = state !== undefined && features.stopCopySize;
    return {
      name,
      idstr,
      features,
      state,
      initialBytes: outgoing.initialBytes,
      stateBytes: known ? await device.stopCopySize().catch(() => undefined) : undefined,
      resets: this.#resets.filter((one) => one === name).length,
      spans: this.#spans.all.filter((span) => span.device === name),
      arcs: device.arcs,
    };
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

  async stop(state: RunState): Promise<void> {
    await this.#stop(state);
  }

  /**
   * Devices that take deadlines are held to it; one that is late runs on, and all others with it. If some of these have no way back, it is given as
   * much time once more: a promise that is broken by so much is better than a migration that is lost.
   */
  async stopWithin(state: RunState, deadlineMs: number): Promise<Error | undefined> {
    const untilMs = nowMs() + deadlineMs;
    const { quietMs, restMs } = await stopEstimate(this.#stopping());
    if (quietMs + restMs > deadlineMs) return tooLate(quietMs + restMs, deadlineMs);
    try {
      await this.#stop(state, { untilMs, restMs });
      return undefined;
    } catch (error) {
      if (!isLate(error)) throw error;
      const stopping = this.#stopping();
      const stuck = await unstopDevices(stopping.map((one) => ({ ...one, keeps: one.outgoing.keepsSession })));
      if (stuck.length > 0) {
        await this.#stopRest(stopping, nowMs() + deadlineMs, stuck);
        return undefined;
      }
      for (const { outgoing } of stopping) outgoing.notStopped();
      await this.#host.resume();
      return asError(error);
    }
  }

  async #stop(state: RunState, deadline?: StopDeadline): Promise<void> {
    const stopping = this.#stopping();
    for (const { outgoing } of stopping) outgoing.stopping();
    await this.#host.stop(state);
    await stopDevices(stopping, deadline);
    for (const { outgoing } of stopping) outgoing.stopped();
  }

  async #stopRest(stopping: readonly StoppingSlot[], untilMs: number, stuck: readonly GuardedDevice[]): Promise<void> {
    try {
      await stopDevices(stopping, { untilMs, restMs: 0 });
    } catch (error) {
      if (!isLate(error)) throw error;
      const names = stuck.map(({ name }) => name).join(', ');
      const why = `it had stopped when another device was late, and what it has begun to save has no way back: ${explain(error)}`;
      throw operationFailed(names, 'set state', ERRNO.ETIMEDOUT, why);
    }
    for (const { outgoing } of stopping) outgoing.stopped();
  }

  #stopping(): readonly StoppingSlot[] {
    return this.#slots
      .filter(({ device }) => !device.lost)
      .map(({ device, outgoing }) => ({ device, outgoing, target: outgoing.stopTarget }));
  }

  async switchoverCost(): Promise<SwitchoverCost> {
    const { quietMs, restMs } = await stopEstimate(this.#stopping());
    const stopMs = quietMs + restMs;
    const toLoad = this.#slots.map(({ device, record, outgoing }): DeviceToLoad => {
      const { figures } = record;
      // Whoever has got data has begun; and to start takes about as long as to stop.
      const allocationMs = Math.max(0, figures.allocationMs - outgoing.sendingForMs);
      return { figures, allocationMs, startMs: stopMs, lock: device.needsMachineLock };
    });
    return { stopMs, load: loadCostOf(toLoad) };
  }

  async loadCost(): Promise<LoadCost> {
    const toLoad = this.#slots.map(({ device, record }): DeviceToLoad => {
      const { figures, begun, startMs } = record;
      return { figures, allocationMs: begun ? 0 : figures.allocationMs, startMs, lock: device.needsMachineLock };
    });
    return loadCostOf(toLoad);
  }

  /** A device that cannot go on is no reason for the guest to stand: it is reset, or given up. */
  async resume(): Promise<void> {
    await startDevices(this.#devices, (device, target) => this.#bring(device, target));
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
      return { name, idstr, instance, precopy: features.states.preCopy, p2p: features.states.p2p };
    });
  }

  get switchoverAckNeeded(): readonly SectionName[] {
    const prepares = ({ features }: GuardedDevice) => features.states.preCopy && features.precopyInfo;
    return this.#slots.filter(({ device }) => prepares(device)).map(({ idstr, instance }) => ({ idstr, instance }));
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
    await this.#freshDevices();
    await this.#host.discard();
  }

  /** A stopped machine waits for a migration: its devices are as new ones. */
  async freshDevices(): Promise<void> {
    await this.#freshDevices();
  }

  get #devices(): readonly GuardedDevice[] {
    return this.#slots.map(({ device }) => device).filter((device) => !device.lost);
  }

  /**
   * To `target`, whatever it takes: what was refused once is asked for again, and who still refuses, or has failed, is reset: its state is lost
   * then. Throws if not even that helps; not if the device is gone.
   */
  async #bring(device: GuardedDevice, target: DeviceState): Promise<void> {
    const goes = () =>
      device.setState(target).then(
        () => true,
        () => device.lost,
      );
    if (await goes()) return;
    const state = await device.state().catch(() => undefined);
    if (device.lost || (state !== 'ERROR' && (await goes()))) return;
    await device.reset();
    this.#resets.push(device.name);
    await device.setState(target);
  }

  /** Out of its saving session, and out of ERROR. */
  async #settle(device: GuardedDevice): Promise<void> {
    const state = await device.state().catch(() => 'ERROR' as const);
    const rest = this.runState === 'running' ? 'RUNNING' : 'STOP';
    await this.#bring(device, state === 'ERROR' ? rest : (AFTER_SAVING[state] ?? state));
  }

  async #freshDevices(): Promise<void> {
    await together(this.#devices, async (device) => {
      const late = setTimeout(() => void device.close(), DISCARD_MS);
      await device.reset().catch(() => device.reset().catch(() => {}));
      clearTimeout(late);
    });
  }

  async #connectMemory(): Promise<void> {
    await together(this.#slots, async ({ connectMemory }) => connectMemory?.());
  }
}
