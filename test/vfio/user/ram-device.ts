/**
 * A small device for the tests of client and server: memory that a guest reads and writes through BAR2, a config space, and a doorbell in
 * BAR0 that makes it copy guest memory by DMA. Its state is all of it, as a stream of records that end with a checksum.
 *
 *     u32 offset  u32 length  bytes      ...      u32 0xffffffff  u32 crc of the memory
 */
import { crc32 } from 'node:zlib';
import {
  type ArcLatency,
  type DeviceFeatures,
  type DeviceInterrupt,
  type DeviceRegion,
  type DeviceState,
  type DmaRange,
  type DmaSpace,
  ERRNO,
  type OfferedDevice,
  operationFailed,
  type PrecopyInfo,
  pathBetween,
  type ReadResult,
  sessionOf,
  type TransitionOptions,
  vfioError,
} from '../../../src/vfio/index.ts';

export const PAGE = 4096;
export const RAM_BAR = 2;
/** BAR0: u64 source, u64 target, u64 count, u64 copies done; a write of the count copies that much guest memory. */
export const DOORBELL_BAR = 0;
const END_MARK = 0xffff_ffff;
const MODERN_ARC_MS = 10;

export interface RamDeviceOptions {
  readonly bytes?: number;
  readonly preCopy?: boolean;
  readonly p2p?: boolean;
  readonly stopCopySize?: boolean;
  /** Takes deadlines and tells what is left of pre-copy. Its arcs take 10 ms each if a deadline asks; in time or not at all. */
  readonly modern?: boolean;
  /** Copies guest memory after the write that asked for it is answered, as hardware does. Otherwise before. */
  readonly background?: boolean;
}

interface Failure {
  readonly errno: number;
  readonly state?: DeviceState;
}

export class RamDevice implements OfferedDevice {
  readonly name = 'ram device';
  readonly features: DeviceFeatures;
  readonly regions: readonly DeviceRegion[];
  readonly interrupts: readonly DeviceInterrupt[] = [
    { index: 0, count: 1 },
    { index: 2, count: 4 },
  ];
  readonly memory: Buffer;
  readonly config = Buffer.alloc(256);
  /** Arcs that fail: `STOP>RUNNING` -> errno, and the state it leaves if not the one before. */
  readonly failing = new Map<string, Failure>();
  /** Awaited at the beginning of every arc. */
  beforeArc: (arc: string) => Promise<void> = async () => {};
  /** Deadlines are missed. */
  missing = false;
  /** Longest read of migration data, bytes. */
  readMax = Number.POSITIVE_INFINITY;
  /** Calls of `setState` by their arcs, resets, and whether there is guest memory: what a test may look at. */
  readonly journal: string[] = [];
  space: DmaSpace | undefined;
  readonly #background: boolean;
  #state: DeviceState = 'RUNNING';
  #dirty = new Set<number>();
  /** What is left to be read of the session, and what came of it to load. */
  #out: Buffer = Buffer.alloc(0);
  #in = Buffer.alloc(0);
  #ended = false;

  constructor({
    bytes = 64 * 1024,
    preCopy = true,
    p2p = false,
    stopCopySize = true,
    background = false,
    modern = false,
  }: RamDeviceOptions = {}) {
    this.#background = background;
    this.memory = Buffer.alloc(bytes);
    this.features = {
      states: { preCopy, p2p },
      dmaLogging: false,
      stopCopySize,
      precopyInfo: modern,
      deadlines: modern,
    };
    this.regions = [
      { index: DOORBELL_BAR, size: 4096, readable: true, writable: true },
      { index: RAM_BAR, size: bytes, readable: true, writable: true },
      { index: 7, size: 256, readable: true, writable: true },
      { index: 1, size: 16, readable: false, writable: true },
      { index: 6, size: 2048, readable: true, writable: false },
    ];
    this.config.writeUInt16LE(0x1234, 0);
    this.config.writeUInt16LE(0x5678, 2);
    // What a driver would have allowed: answering, and reaching guest memory.
    this.config.writeUInt16LE(6, 4);
  }

  async state(): Promise<DeviceState> {
    return this.#state;
  }

  async setState(target: DeviceState, { deadlineMs }: TransitionOptions = {}): Promise<readonly ArcLatency[]> {
    const path = pathBetween(this.features.states, this.#state, target);
    if (path === undefined) {
      const fault = {
        code: 'VFIO_NO_PATH',
        device: this.name,
        errno: ERRNO.EINVAL,
        from: this.#state,
        to: target,
      } as const;
      throw vfioError(fault, 'no path');
    }
    this.#keep(target, path.length * MODERN_ARC_MS, deadlineMs);
    for (const { from, to } of path) {
      const arc = `${from}>${to}`;
      this.journal.push(arc);
      await this.beforeArc(arc);
      const failure = this.failing.get(arc) ?? (arc === 'RESUMING>STOP' ? this.load() : undefined);
      if (failure !== undefined) {
        this.#state = failure.state ?? from;
        const fault = {
          code: 'VFIO_ARC_FAILED',
          device: this.name,
          errno: failure.errno,
          from,
          to,
          state: this.#state,
        } as const;
        throw vfioError(fault, `${arc} failed`);
      }
      this.#state = to;
      this.entered(from, to);
    }
    return path.map((arc) => ({ ...arc, ms: 0 }));
  }

  /** The deadline, or why not: too short to be promised, or (a test's doing) missed. */
  #keep(to: DeviceState, neededMs: number, deadlineMs: number | undefined): void {
    if (deadlineMs === undefined) return;
    const [device, state] = [this.name, this.#state];
    if (neededMs > deadlineMs) {
      throw vfioError(
        { code: 'VFIO_DEADLINE_REFUSED', device, errno: ERRNO.ETIME, deadlineMs, neededMs },
        `${to}: not promised`,
      );
    }
    if (this.missing) {
      throw vfioError(
        { code: 'VFIO_DEADLINE_MISSED', device, errno: ERRNO.ETIMEDOUT, deadlineMs, state },
        `${to}: missed`,
      );
    }
  }

  protected entered(from: DeviceState, to: DeviceState): void {
    if (sessionOf(to) === 'saving' && sessionOf(from) !== 'saving') {
      this.#out = Buffer.alloc(0);
      this.#dirty = new Set(Array.from({ length: this.memory.length / PAGE }, (_, page) => page));
      this.#ended = false;
    }
    if (to === 'RESUMING') this.#in = Buffer.alloc(0);
  }

  async estimate(target: DeviceState): Promise<number | undefined> {
    const path = pathBetween(this.features.states, this.#state, target);
    return this.features.deadlines && path !== undefined ? path.length * MODERN_ARC_MS : undefined;
  }

  async read(into: Buffer): Promise<ReadResult> {
    if (this.#out.length === 0) this.#out = this.#next();
    if (this.#out.length === 0) return this.#state === 'STOP_COPY' ? 'end' : 'nothing now';
    const count = Math.min(this.#out.copy(into), this.readMax);
    this.#out = this.#out.subarray(count);
    return count;
  }

  /** The next record. */
  #next(): Buffer {
    const [page] = this.#dirty;
    const head = Buffer.alloc(8);
    if (page !== undefined) {
      this.#dirty.delete(page);
      head.writeUInt32LE(page * PAGE, 0);
      head.writeUInt32LE(PAGE, 4);
      return Buffer.concat([head, this.memory.subarray(page * PAGE, (page + 1) * PAGE)]);
    }
    if (this.#state !== 'STOP_COPY' || this.#ended) return Buffer.alloc(0);
    this.#ended = true;
    return this.endRecord();
  }

  /** The end of a stream; alone, the stream of a device whose memory is as this one's already. */
  endRecord(): Buffer {
    const record = Buffer.alloc(8);
    record.writeUInt32LE(END_MARK, 0);
    record.writeUInt32LE(crc32(this.memory), 4);
    return record;
  }

  async write(bytes: Buffer): Promise<void> {
    this.#in = Buffer.concat([this.#in, bytes]);
  }

  /** Takes what has come; EINVAL if it is not a whole stream. */
  protected load(): Failure | undefined {
    for (let at = 0; at + 8 <= this.#in.length; ) {
      const offset = this.#in.readUInt32LE(at);
      const length = this.#in.readUInt32LE(at + 4);
      if (offset === END_MARK) return crc32(this.memory) === length ? undefined : { errno: ERRNO.EINVAL };
      this.#in.copy(this.memory, offset, at + 8, at + 8 + length);
      at += 8 + length;
    }
    return { errno: ERRNO.EINVAL };
  }

  async precopyInfo(): Promise<PrecopyInfo> {
    if (sessionOf(this.#state) !== 'saving') throw operationFailed(this.name, 'precopy info', ERRNO.EINVAL, 'not now');
    return { initialBytes: this.#dirty.size * PAGE, dirtyBytes: 7, reinit: true };
  }

  async stopCopySize(): Promise<number> {
    return this.#dirty.size * (PAGE + 8) + 8;
  }

  async startDmaLogging(): Promise<number> {
    throw operationFailed(this.name, 'start DMA logging', ERRNO.EOPNOTSUPP, 'none');
  }

  async stopDmaLogging(): Promise<void> {}

  async reportDmaLogging(_range: DmaRange): Promise<void> {}

  async reset(): Promise<void> {
    this.journal.push('reset');
    this.memory.fill(0);
    this.#state = 'RUNNING';
  }

  async close(): Promise<void> {
    this.journal.push('close');
  }

  async attachDma(space: DmaSpace | undefined): Promise<void> {
    this.space = space;
    this.journal.push(space === undefined ? 'memory gone' : 'memory');
  }

  async readRegion(index: number, offset: number, into: Buffer): Promise<void> {
    this.#bytesOf(index).copy(into, 0, offset);
  }

  async writeRegion(index: number, offset: number, bytes: Buffer): Promise<void> {
    bytes.copy(this.#bytesOf(index), offset);
    if (index === RAM_BAR) this.touch(offset, bytes.length);
    if (index !== DOORBELL_BAR || offset !== 16) return;
    const copying = this.#copyGuestMemory();
    if (!this.#background) await copying;
    else copying.catch((error) => this.journal.push(String(error)));
  }

  /** The guest has written to the device's memory. */
  touch(offset: number, length: number): void {
    for (let page = Math.floor(offset / PAGE); page * PAGE < offset + length; page++) this.#dirty.add(page);
  }

  #registers = Buffer.alloc(4096);

  #bytesOf(index: number): Buffer {
    if (index === RAM_BAR) return this.memory;
    return index === 7 ? this.config : this.#registers;
  }

  async #copyGuestMemory(): Promise<void> {
    const [source, target, count] = [0, 8, 16].map((at) => Number(this.#registers.readBigUInt64LE(at)));
    const bytes = Buffer.alloc(count!);
    if (this.space === undefined) throw operationFailed(this.name, 'write region', ERRNO.EFAULT, 'no guest memory');
    await this.space.read(source!, bytes);
    await this.space.write(target!, bytes);
    this.#registers[24]!++;
  }
}
