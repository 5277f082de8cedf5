/**
 * A device that lives behind a vfio-user server, as a VfioDevice. One command is under way at a time, in the order of the calls: there are
 * servers that take a command which comes while they wait for guest memory for the answer to that.
 *
 * The client walks a path arc by arc, so that each has its time and a failure its place. Migration data go by as large messages as the
 * server takes. A server that breaks the protocol, is silent or goes away is lost: VFIO_GONE, with what happened as its cause.
 */
import { asError, nowMs } from '../../base/index.ts';
import { vfioUser } from '../../wire/index.ts';
import type {
  ArcLatency,
  DeviceConfig,
  DeviceFeatures,
  DmaRange,
  PrecopyInfo,
  ReadResult,
  TransitionOptions,
  VfioDevice,
} from '../device.ts';
import { checkLogRanges, checkLogReport, DmaLogError } from '../dma-log-rules.ts';
import { type DeviceOperation, deviceGone, ERRNO, isVfioError, operationFailed } from '../errors.ts';
import { type DeviceState, type StateOptions, stateOptionsOf } from '../states.ts';
import { type Link, refusedErrno } from '../user-link/link.ts';
import { PageLog } from '../user-link/page-log.ts';
import { CLIENT_TIMEOUTS, type ClientTimeouts, type Connection, openConnection } from './connect.ts';
import { askDeviceState, estimateMove, getFeature, probeFeature } from './features.ts';
import { GuestConfig } from './guest-config.ts';
import { type GuestMemory, mapRequest, ServedMemory, unmapRequest } from './guest-memory.ts';
import { RemoteFunction } from './remote-function.ts';
import { RemoteState } from './remote-state.ts';

export interface UserDeviceOptions {
  /** Path of the server's unix socket. */
  readonly socket: string;
  /** For messages. Default: the path. */
  readonly name?: string | undefined;
  readonly timeouts?: Partial<ClientTimeouts> | undefined;
  /** Gives the opening up; no power over the device afterwards. */
  readonly signal?: AbortSignal | undefined;
}

/** Connects, and asks what the device can do. Throws TransportError, VfioUserError, WireError. */
export async function openUserDevice(options: UserDeviceOptions): Promise<UserDevice> {
  const timeouts = { ...CLIENT_TIMEOUTS, ...options.timeouts };
  const memory = new ServedMemory();
  const serve = (message: vfioUser.Message) => memory.serve(message);
  const connection = await openConnection({ socket: options.socket, timeouts, serve, signal: options.signal });
  const { link } = connection;
  try {
    const states = await askStates(link, timeouts.commandMs);
    const state = states === undefined ? 'RUNNING' : await askDeviceState(link, timeouts.commandMs);
    const has = (name: vfioUser.FeatureName, operation: 'get' | 'set') =>
      probeFeature(link, name, operation, timeouts.commandMs);
    const features = {
      states: states ?? { p2p: false, preCopy: false },
      dmaLogging: true,
      stopCopySize: states !== undefined && (await has('MIG_DATA_SIZE', 'get')),
      // vfio-user has neither, but vmferry's servers do.
      precopyInfo: connection.ours && (await has('PRECOPY_INFO', 'get')),
      deadlines: connection.ours && (await has('DEADLINE', 'set')),
    };
    const name = options.name ?? options.socket;
    return new UserDevice({ name, connection, timeouts, memory, features, migratable: states !== undefined, state });
  } catch (error) {
    link.close(asError(error));
    throw error;
  }
}

/** Undefined: it cannot migrate. */
async function askStates(link: Link, timeoutMs: number): Promise<StateOptions | undefined> {
  try {
    return await getFeature(link, 'MIGRATION', timeoutMs, ({ flags }) => stateOptionsOf(flags % 0x1_0000_0000));
  } catch (error) {
    if (refusedErrno(error) === undefined) throw error;
    return undefined;
  }
}

interface Opened {
  readonly name: string;
  readonly connection: Connection;
  readonly timeouts: ClientTimeouts;
  readonly memory: ServedMemory;
  readonly features: DeviceFeatures;
  readonly migratable: boolean;
  readonly state: DeviceState;
}

export class UserDevice implements VfioDevice, DeviceConfig {
  readonly name: string;
  readonly features: DeviceFeatures;
  /** False: it has no MIGRATION feature, no state can be asked for. */
  readonly migratable: boolean;
  readonly needsMachineLock = false;
  /** Settles, never rejects, when the connection is over; with the reason. */
  readonly ended: Promise<Error>;
  readonly #link: Link;
  readonly #connection: Connection;
  readonly #timeouts: ClientTimeouts;
  readonly #memory: ServedMemory;
  readonly #state: RemoteState;
  /** What the server was told of guest memory. */
  readonly #mapped: DmaRange[] = [];
  #config: GuestConfig | undefined;
  /** Settles, never rejects, when the calls made so far are over. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor({ name, connection, timeouts, memory, features, migratable, state }: Opened) {
    this.name = name;
    this.features = features;
    this.migratable = migratable;
    this.ended = connection.link.ended;
    this.#link = connection.link;
    this.#connection = connection;
    this.#timeouts = timeouts;
    this.#memory = memory;
    this.#state = new RemoteState({ device: name, link: connection.link, timeouts, features, migratable, state });
  }

  state(): Promise<DeviceState> {
    return this.#inTurn('get state', () => this.#state.ask());
  }

  setState(target: DeviceState, { deadlineMs }: TransitionOptions = {}): Promise<readonly ArcLatency[]> {
    if (deadlineMs === undefined) return this.#inTurn('set state', () => this.#state.walk(target));
    const untilMs = nowMs() + deadlineMs;
    return this.#inTurn('set state', () => this.#state.walkUntil(target, deadlineMs, untilMs));
  }

  estimate(target: DeviceState): Promise<number | undefined> {
    if (!this.#connection.ours) return Promise.resolve(undefined);
    return this.#inTurn('estimate', () => estimateMove(this.#link, target, this.#timeouts.commandMs));
  }

  /** A server may answer with less than there is; only an empty answer says that there is nothing. */
  read(into: Buffer): Promise<ReadResult> {
    return this.#inTurn('read data', async () => {
      const size = Math.min(into.length, this.#connection.readBytesMax);
      const request = { argsz: vfioUser.MIG_DATA_HEAD_BYTES + size, size };
      const { deviceMs } = this.#timeouts;
      const count = await this.#link.request('MIG_DATA_READ', request, deviceMs, ({ data }) => {
        if (data.length > size) throw this.#link.badReply('MIG_DATA_READ', `at most ${size} bytes`, data.length);
        return data.copy(into);
      });
      if (count > 0) return count;
      return this.#state.known === 'STOP_COPY' ? 'end' : 'nothing now';
    });
  }

  write(bytes: Buffer): Promise<void> {
    return this.#inTurn('write data', async () => {
      for (let at = 0; at < bytes.length; at += this.#connection.writeBytesMax) {
        const data = bytes.subarray(at, at + this.#connection.writeBytesMax);
        await this.#link.request('MIG_DATA_WRITE', { data }, this.#timeouts.deviceMs, () => {});
      }
    });
  }

  async precopyInfo(): Promise<PrecopyInfo> {
    if (!this.features.precopyInfo) {
      throw operationFailed(this.name, 'precopy info', ERRNO.EOPNOTSUPP, 'vfio-user has nothing that would tell it');
    }
    return this.#inTurn('precopy info', () =>
      getFeature(this.#link, 'PRECOPY_INFO', this.#timeouts.commandMs, ({ initialBytes, dirtyBytes, flags }) => {
        return { initialBytes, dirtyBytes, reinit: (flags & vfioUser.PRECOPY_INFO_REINIT) !== 0 };
      }),
    );
  }

  stopCopySize(): Promise<number> {
    return this.#inTurn('stop-copy size', async () => {
      return getFeature(this.#link, 'MIG_DATA_SIZE', this.#timeouts.commandMs, ({ stopCopyBytes }) => stopCopyBytes);
    });
  }

  /** Of its own: whatever the device writes to guest memory is written by this side. */
  async startDmaLogging(pageSize: number, ranges: readonly DmaRange[]): Promise<number> {
    return this.#logging('start DMA logging', () => {
      if (this.#memory.log !== undefined) throw new DmaLogError(ERRNO.EINVAL, 'it logs already');
      this.#memory.log = new PageLog(pageSize, checkLogRanges(pageSize, ranges));
      return pageSize;
    });
  }

  async stopDmaLogging(): Promise<void> {
    this.#logging('stop DMA logging', () => {
      this.#log();
      this.#memory.log = undefined;
    });
  }

  async reportDmaLogging(range: DmaRange, pageSize: number, into: Uint32Array): Promise<void> {
    this.#logging('report DMA logging', () => {
      const log = this.#log();
      checkLogReport(range, pageSize, into.length);
      log.report(range, pageSize, into);
    });
  }

  /**
   * A server may refuse a reset of a device that stands, and may keep the migration state of one that it resets (libvfio-user does both): such a
   * device is made to run, and reset then.
   */
  reset(): Promise<void> {
    return this.#inTurn('reset', async () => {
      const done = await this.#reset().then(
        () => true,
        (error) => {
          if (refusedErrno(error) === undefined || !this.migratable) throw error;
          return false;
        },
      );
      if (!this.migratable) return;
      if ((await this.#state.ask()) !== 'RUNNING') await this.#state.walk('RUNNING');
      if (!done) await this.#reset();
    });
  }

  /**
   * Tells the server of the memory that it may reach, in place of what was attached before; in a state that allows it (any but STOP and
   * STOP_COPY with libvfio-user). Addresses are all that it is told: another memory at the same ones is no news for it.
   */
  attachMemory(memory: GuestMemory): Promise<void> {
    return this.#inTurn('attach memory', async () => {
      const stays = (range: DmaRange) => memory.ranges.some((other) => isSameRange(range, other));
      await this.#unmap((range) => !stays(range));
      // Device and server may reach it before the answer has come.
      this.#memory.memory = memory;
      for (const range of memory.ranges) {
        if (this.#mapped.some((other) => isSameRange(range, other))) continue;
        await this.#link.request('DMA_MAP', mapRequest(range), this.#timeouts.deviceMs, () => {});
        this.#mapped.push(range);
      }
    });
  }

  detachMemory(): Promise<void> {
    return this.#inTurn('detach memory', async () => {
      await this.#unmap(() => true);
      this.#memory.memory = undefined;
    });
  }

  /** Its regions and interrupts, asked now. libvfio-user does not tell in STOP and STOP_COPY. */
  describe(): Promise<RemoteFunction> {
    const inTurn = <T>(operation: DeviceOperation, work: () => Promise<T>) => this.#inTurn(operation, work);
    return this.#inTurn('open', () => RemoteFunction.ask(this.#connection, this.#timeouts.commandMs, inTurn));
  }

  /** Asks for what is kept of its configuration, in a state in which it tells. Before anything of it is saved or loaded. */
  async learnConfig(): Promise<void> {
    this.#config = await GuestConfig.ask(await this.describe());
  }

  /**
   * What a guest's driver does at its start: the device's regions answer, and it may write to guest memory, which should be attached by then. On
   * the other side of a migration that comes with the configuration, not before the guest's memory is there.
   */
  async enable(): Promise<void> {
    await this.learnConfig();
    await this.#config?.enable();
  }

  async saveConfig(): Promise<Buffer> {
    return this.#known('save config').save();
  }

  async loadConfig(bytes: Buffer): Promise<void> {
    const wrong = await this.#known('load config').load(bytes);
    if (wrong !== undefined) throw operationFailed(this.name, 'load config', ERRNO.EINVAL, wrong);
  }

  async close(): Promise<void> {
    this.#link.close(deviceGone(this.name, 'close'));
  }

  #log(): PageLog {
    if (this.#memory.log === undefined) throw new DmaLogError(ERRNO.EINVAL, 'nothing is logged');
    return this.#memory.log;
  }

  #logging<T>(operation: DeviceOperation, work: () => T): T {
    try {
      return work();
    } catch (thrown) {
      if (!(thrown instanceof DmaLogError)) throw thrown;
      throw operationFailed(this.name, operation, thrown.errno, thrown.message);
    }
  }

  #known(operation: DeviceOperation): GuestConfig {
    if (this.#config === undefined) throw operationFailed(this.name, operation, ERRNO.EINVAL, 'it was not learnt');
    return this.#config;
  }

  async #unmap(which: (range: DmaRange) => boolean): Promise<void> {
    for (const range of this.#mapped.filter(which)) {
      await this.#link.request('DMA_UNMAP', unmapRequest(range), this.#timeouts.deviceMs, () => {});
      this.#mapped.splice(this.#mapped.indexOf(range), 1);
    }
  }

  #reset(): Promise<void> {
    return this.#link.request('DEVICE_RESET', {}, this.#timeouts.deviceMs, () => {});
  }

  #inTurn<T>(operation: DeviceOperation, work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(work).catch((error) => {
      throw this.#explained(operation, error);
    });
    this.#turn = result.catch(() => {});
    return result;
  }

  #explained(operation: DeviceOperation, error: unknown): unknown {
    if (isVfioError(error)) return error;
    const errno = refusedErrno(error);
    if (errno !== undefined) return operationFailed(this.name, operation, errno, 'the server refuses');
    return deviceGone(this.name, operation, error);
  }
}

function isSameRange(a: DmaRange, b: DmaRange): boolean {
  return a.iova === b.iova && a.length === b.length;
}
