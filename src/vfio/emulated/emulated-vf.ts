/** The emulated VF as its owner sees it: a device in a thread of its own. */
import { Worker } from 'node:worker_threads';
import { CONFIG_SPACE_BYTES } from '../config-space.ts';
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
import { type DeviceOperation, deviceGone, ERRNO, operationFailed, vfioError } from '../errors.ts';
import type { DeviceFunction, DeviceInterrupt, DeviceRegion, DmaSpace } from '../function.ts';
import type { DeviceState } from '../states.ts';
import type { SharedWindow } from './dma.ts';
import type { DeviceEvidence } from './emulated-device.ts';
import type { DeviceCalls, DeviceStart, FromDevice, SharedBytes, ToDevice } from './messages.ts';
import { featuresOf, loadFiguresOf } from './options.ts';
import { BAR_BYTES } from './stream-format.ts';

/** Opening writes the device's whole state: time for it, ms, and bytes of state a ms on top. */
const OPEN_MS = 30_000;
const FILL_BYTES_PER_MS_MIN = 50_000;

/** Bytes that are not in shared memory are read through this much of it at once. */
const BOUNCE_BYTES = 1024 * 1024;
const BOUNCES_KEPT = 2;

interface Call {
  readonly operation: DeviceOperation;
  readonly resolve: (value: never) => void;
  readonly reject: (error: Error) => void;
}

export class EmulatedVf implements VfioDevice, DeviceConfig, DeviceFunction {
  readonly name: string;
  readonly features: DeviceFeatures;
  readonly needsMachineLock: boolean;
  readonly loadFigures: LoadFigures;
  readonly regions: readonly DeviceRegion[] = [
    { index: 0, size: BAR_BYTES, readable: true, writable: true },
    { index: 7, size: CONFIG_SPACE_BYTES, readable: true, writable: true },
  ];
  readonly interrupts: readonly DeviceInterrupt[] = [{ index: 0, count: 1 }];
  readonly #thread: Worker;
  readonly #calls = new Map<number, Call>();
  readonly #ended: Promise<void>;
  #started: (() => void) | undefined;
  #nextCall = 0;
  #mailbox: SharedArrayBuffer | undefined;
  #threadId = 0;
  #gone: Error | undefined;
  #space: DmaSpace | undefined;
  /** Shared memory for bytes that are not in any: what nobody uses now. */
  readonly #bounces: Buffer[] = [];

  private constructor(start: DeviceStart) {
    const { name, options } = start;
    this.name = name;
    this.needsMachineLock = options['config-lock'];
    this.features = featuresOf(options);
    this.loadFigures = loadFiguresOf(options);
    this.#thread = new Worker(new URL('./device-thread.js', import.meta.url), {
      name,
      workerData: start,
      execArgv: [],
    });
    this.#thread.on('message', (message: FromDevice) => this.#take(message));
    this.#thread.on('error', (error) => this.#lost(error));
    this.#ended = new Promise((resolve) => {
      this.#thread.on('exit', () => {
        this.#lost(undefined);
        resolve();
      });
    });
  }

  /** A device in RUNNING, without guest memory. Throws VFIO_GONE, or what `open` is made to fail with. */
  static async open(start: DeviceStart): Promise<EmulatedVf> {
    const vf = new EmulatedVf(start);
    const deadlineMs = OPEN_MS + start.options['state-size'] / FILL_BYTES_PER_MS_MIN;
    const timer = setTimeout(() => void vf.close(), deadlineMs);
    try {
      await new Promise<void>((resolve) => {
        vf.#started = resolve;
        if (vf.#gone !== undefined) resolve();
      });
      if (vf.#gone === undefined) return vf;
      await vf.close();
      throw vf.#gone;
    } finally {
      clearTimeout(timer);
    }
  }

  /** The kernel's number of its thread. */
  get threadId(): number {
    return this.#threadId;
  }

  /** What another VF attaches to write to this one. */
  get mailbox(): SharedArrayBuffer {
    return this.#mailbox!;
  }

  state(): Promise<DeviceState> {
    return this.#call('get state', 'state');
  }

  setState(target: DeviceState, options: TransitionOptions = {}): Promise<readonly ArcLatency[]> {
    return this.#call('set state', 'setState', target, options);
  }

  estimate(target: DeviceState): Promise<number | undefined> {
    return this.#call('estimate', 'estimate', target);
  }

  read(into: Buffer): Promise<ReadResult> {
    const shared = sharedBytes(into);
    if (shared !== undefined) return this.#call('read data', 'read', shared);
    return this.#throughBounce(Math.min(into.length, BOUNCE_BYTES), async (bounce) => {
      const result = await this.#call('read data', 'read', sharedBytes(bounce)!);
      if (typeof result === 'number') bounce.copy(into, 0, 0, result);
      return result;
    });
  }

  async write(bytes: Buffer): Promise<void> {
    const shared = sharedBytes(bytes);
    if (shared !== undefined) return await this.#call('write data', 'write', shared);
    await this.#throughBounce(bytes.length, (bounce) => {
      bytes.copy(bounce);
      return this.#call('write data', 'write', sharedBytes(bounce)!);
    });
  }

  precopyInfo(): Promise<PrecopyInfo> {
    return this.#call('precopy info', 'precopyInfo');
  }

  stopCopySize(): Promise<number> {
    return this.#call('stop-copy size', 'stopCopySize');
  }

  startDmaLogging(pageSize: number, ranges: readonly DmaRange[]): Promise<number> {
    return this.#call('start DMA logging', 'startDmaLogging', pageSize, ranges);
  }

  stopDmaLogging(): Promise<void> {
    return this.#call('stop DMA logging', 'stopDmaLogging');
  }

  async reportDmaLogging(range: DmaRange, pageSize: number, into: Uint32Array): Promise<void> {
    const map = await this.#call('report DMA logging', 'reportDmaLogging', range, pageSize, into.length);
    for (const [word, bits] of map.entries()) if (bits !== 0) into[word]! |= bits;
  }

  reset(): Promise<void> {
    return this.#call('reset', 'reset');
  }

  async saveConfig(): Promise<Buffer> {
    const bytes: Uint8Array = await this.#call('save config', 'saveConfig');
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  loadConfig(bytes: Buffer): Promise<void> {
    return this.#call('load config', 'loadConfig', bytes);
  }

  async readRegion(index: number, offset: number, into: Buffer): Promise<void> {
    const bytes = await this.#call('read region', 'readRegion', index, offset, into.length);
    into.set(bytes);
  }

  writeRegion(index: number, offset: number, bytes: Buffer): Promise<void> {
    return this.#call('write region', 'writeRegion', index, offset, bytes);
  }

  async attachDma(space: DmaSpace | undefined): Promise<void> {
    await this.#call('open', 'attachMessages', space !== undefined);
    this.#space = space;
  }

  /** Memory of this process, which the device's thread reaches by itself. In place of what was attached before. */
  attachWindow(window: SharedWindow | undefined): Promise<void> {
    return this.#call('open', 'attachWindow', window);
  }

  /** The VF that this one writes to. */
  attachPeer(peer: EmulatedVf | undefined): Promise<void> {
    return this.#call('open', 'attachPeer', peer?.mailbox);
  }

  /** Recomputes what the stopped device must be like. */
  evidence(): Promise<DeviceEvidence> {
    return this.#call('open', 'evidence');
  }

  async close(): Promise<void> {
    await this.#thread.terminate();
    await this.#ended;
  }

  #call<M extends keyof DeviceCalls>(
    operation: DeviceOperation,
    method: M,
    ...args: Parameters<DeviceCalls[M]>
  ): Promise<ReturnType<DeviceCalls[M]>> {
    if (this.#gone !== undefined) return Promise.reject(deviceGone(this.name, operation, this.#gone));
    const id = this.#nextCall++;
    return new Promise((resolve, reject) => {
      this.#calls.set(id, { operation, resolve, reject });
      this.#post({ kind: 'call', id, method, args } as ToDevice);
    });
  }

  #post(message: ToDevice): void {
    this.#thread.postMessage(message);
  }

  #take(message: FromDevice): void {
    switch (message.kind) {
      case 'started':
        this.#mailbox = message.mailbox;
        this.#threadId = message.threadId;
        this.#started?.();
        return;
      case 'refused':
        this.#gone = vfioError(message.fault, message.message);
        this.#started?.();
        return;
      case 'answer':
        this.#calls.get(message.id)?.resolve(message.value as never);
        this.#calls.delete(message.id);
        return;
      case 'failed':
        this.#calls.get(message.id)?.reject(vfioError(message.fault, message.message));
        this.#calls.delete(message.id);
        return;
      case 'dma':
        void this.#dma(message.iova, message.words);
    }
  }

  async #dma(iova: number, words: readonly (readonly [number, number])[]): Promise<void> {
    const space = this.#space;
    const writes = words.map(async ([offset, word]) => {
      if (space === undefined) throw operationFailed(this.name, 'open', ERRNO.ENOENT, 'no guest memory is attached');
      const bytes = Buffer.allocUnsafe(4);
      bytes.writeInt32LE(word);
      await space.write(iova + offset, bytes);
    });
    const done = await Promise.allSettled(writes);
    if (this.#gone === undefined)
      this.#post({ kind: 'dma-done', ok: done.every(({ status }) => status === 'fulfilled') });
  }

  /** `use` is called at once: the order of the calls is that of the device. */
  async #throughBounce<T>(length: number, use: (bounce: Buffer) => Promise<T>): Promise<T> {
    const free = this.#bounces.findIndex((bounce) => bounce.length >= length);
    const bounce =
      this.#bounces.splice(free, free < 0 ? 0 : 1)[0] ??
      Buffer.from(new SharedArrayBuffer(Math.max(length, BOUNCE_BYTES)));
    try {
      return await use(bounce.subarray(0, length));
    } finally {
      if (this.#bounces.length < BOUNCES_KEPT) this.#bounces.push(bounce);
    }
  }

  #lost(cause: Error | undefined): void {
    this.#gone ??= deviceGone(this.name, 'open', cause);
    for (const { operation, reject } of this.#calls.values()) reject(deviceGone(this.name, operation, cause));
    this.#calls.clear();
    this.#started?.();
  }
}

function sharedBytes(bytes: Buffer): SharedBytes | undefined {
  if (!(bytes.buffer instanceof SharedArrayBuffer)) return undefined;
  return { memory: bytes.buffer, at: bytes.byteOffset, length: bytes.length };
}
