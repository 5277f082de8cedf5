/**
 * A VFIO device on its way in: its section's elements become writes, a transition and a configuration. Data is taken into a few blocks of
 * shared memory and the device works them off meanwhile, so that a slow device holds back the stream only when they are full.
 *
 *     SETUP -> RESUMING     DATA -> write ...     INIT_DATA_SENT -> told to the engine when it is loaded
 *     parallel channels -> write ..., then the rest as here below
 *     END of the END section -> RESUMING -> STOP (the device checks its state)     CONFIG -> a task behind that
 */
import { asError, nowMs, WakeUp } from '../../base/index.ts';
import type { IncomingState, LoadEngine } from '../../machine/index.ts';
import { decodeVfioConfig, type SectionHeader, type VfioElement } from '../../wire/index.ts';
import { ERRNO, operationFailed } from '../errors.ts';
import type { GuardedDevice } from './guarded-device.ts';
import type { LoadRecord } from './load-record.ts';
import type { Span, Spans } from './spans.ts';

const BLOCK_BYTES = 1024 * 1024;
const BLOCKS = 4;

export class IncomingDevice {
  readonly device: GuardedDevice;
  readonly #engine: LoadEngine;
  readonly #spans: Spans;
  readonly #record: LoadRecord;
  readonly #free: Buffer[] = [];
  #blocks = 0;
  readonly #news = new WakeUp();
  /** The block that is being filled, and how far. */
  #block: Buffer | undefined;
  #filled = 0;
  /** Settles when all writes so far are done; never rejects, failures go to the engine. */
  #written: Promise<void> = Promise.resolve();
  #failure: Error | undefined;
  #preload: Span | undefined;
  #initial: Span | undefined;
  #receive: Span | undefined;
  #load: Span | undefined;
  #begun = false;
  #stateLoaded: Promise<void> | undefined;
  /** Its last part comes on parallel channels. */
  #beside = false;
  #config = false;

  constructor(device: GuardedDevice, engine: LoadEngine, spans: Spans, record: LoadRecord) {
    this.device = device;
    this.#engine = engine;
    this.#spans = spans;
    this.#record = record;
    record.begin();
    spans.clear(device.name);
    device.clearArcs();
    engine.signal.addEventListener('abort', () => this.#stop(asError(engine.signal.reason)), { once: true });
  }

  /** What has not come, for the error that says so; undefined: all is here. */
  get missing(): string | undefined {
    if (!this.#begun) return 'state and configuration';
    if (this.#stateLoaded === undefined) return 'the end of its state';
    return this.#config ? undefined : 'its configuration';
  }

  /** Elements in the order of the stream. Resolves when the next may come; throws what the stream may not say. */
  async take(section: SectionHeader, element: VfioElement): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    switch (element.tag) {
      case 'DEV_SETUP_STATE':
        return await this.#begin();
      case 'DEV_DATA_STATE':
        if (!this.#begun || this.#stateLoaded !== undefined) throw this.#wrong('data outside of its state');
        return await this.#data(element.bytes, element.left === 0, section.kind === 'end');
      case 'DEV_INIT_DATA_SENT':
        return this.#initialData(section);
      case 'DEV_CONFIG_STATE':
        return this.#takeConfig(Buffer.from(element.bytes));
      case 'END_OF_STATE':
        if (section.kind === 'end' && !this.#beside) this.#endState();
        return;
      case 'DEV_CONFIG_LOAD_READY':
        return;
    }
  }

  async #begin(): Promise<void> {
    if (this.#begun) throw this.#wrong('a second beginning');
    this.#begun = true;
    await this.device.setState('RESUMING');
    this.#record.waiting();
  }

  /** `stopped`: the guest has stopped at the source. */
  async #data(bytes: Buffer, last: boolean, stopped: boolean): Promise<void> {
    if (stopped) this.#received(nowMs(), bytes.length);
    for (let at = 0; at < bytes.length; ) {
      this.#block ??= await this.#freeBlock();
      const count = bytes.copy(this.#block, this.#filled, at);
      at += count;
      this.#filled += count;
      if (this.#filled === BLOCK_BYTES) this.#write(stopped);
    }
    if (last) this.#write(stopped);
  }

  #received(atMs: number, bytes: number): void {
    this.#receive ??= this.#spans.begin(this.device.name, 'receive', atMs);
    this.#spans.end(this.#receive, bytes, atMs);
  }

  #loading(): Span {
    this.#load ??= this.#spans.begin(this.device.name, 'load');
    return this.#load;
  }

  #preloading(): Span {
    this.#preload ??= this.#spans.begin(this.device.name, 'preload');
    return this.#preload;
  }

  /** Gives what is filled to the device. */
  #write(stopped: boolean): void {
    const block = this.#block;
    if (block === undefined || this.#filled === 0) return;
    const bytes = block.subarray(0, this.#filled);
    this.#block = undefined;
    this.#filled = 0;
    const span = stopped ? this.#loading() : this.#preloading();
    const done = this.#writeTimed(bytes).then(
      () => this.#spans.end(span, bytes.length),
      (error) => this.#fail(asError(error)),
    );
    const before = this.#written;
    this.#written = done.then(() => before);
    void done.then(() => {
      this.#free.push(block);
      this.#news.wake();
    });
  }

  async #writeTimed(bytes: Buffer): Promise<void> {
    const calledMs = nowMs();
    await this.device.write(bytes);
    this.#record.wrote(bytes.length, calledMs);
  }

  async #freeBlock(): Promise<Buffer> {
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure;
      const block = this.#free.pop() ?? this.#newBlock();
      if (block !== undefined) return block;
      await this.#news.next();
    }
  }

  #newBlock(): Buffer | undefined {
    if (this.#blocks === BLOCKS) return undefined;
    this.#blocks++;
    return Buffer.from(new SharedArrayBuffer(BLOCK_BYTES));
  }

  #initialData(section: SectionHeader): void {
    if (!this.#begun) throw this.#wrong('the end of initial data before its beginning');
    const { idstr, instance } = section;
    const span = this.#initial ?? this.#spans.begin(this.device.name, 'initial', this.#preload?.startMs);
    this.#initial = span;
    void this.#written.then(() => {
      if (this.#failure !== undefined) return;
      this.#spans.end(span);
      this.#engine.initialDataLoaded({ idstr, instance });
    });
  }

  #endState(): void {
    if (!this.#begun || this.#stateLoaded !== undefined) throw this.#wrong('an end of its state that cannot be there');
    this.#adopt(async () => {});
  }

  /** What the stream has brought is before all that comes from there. */
  loadBeside(state: IncomingState): void {
    if (!this.#begun || this.#stateLoaded !== undefined) throw this.#wrong('a switchover before its beginning');
    this.#beside = true;
    let config: Buffer | undefined;
    this.#adopt(async () => {
      config = await this.#loadAll(state);
    });
    this.#loadConfig(() => config!);
  }

  /** A task of the engine: what the stream has brought, then `rest`, then the device checks the whole. */
  #adopt(rest: () => Promise<void>): void {
    const run = async () => {
      await this.#written;
      await rest();
      if (this.#failure !== undefined) throw this.#failure;
      await this.device.setState('STOP');
      this.#spans.end(this.#loading());
    };
    this.#stateLoaded = this.#engine.run({ name: `${this.device.name} state`, kind: 'state', lock: false, run });
    this.#stateLoaded.catch(() => {});
  }

  /** Returns the configuration, which comes last. */
  async #loadAll(state: IncomingState): Promise<Buffer> {
    for (;;) {
      const buffer = await state.next();
      this.#received(buffer.arrivedMs, buffer.bytes.length);
      if (buffer.isConfig) {
        const config = decodeVfioConfig(buffer.bytes);
        buffer.release();
        if (config === undefined) throw this.#wrong('a last packet that is no configuration');
        return config;
      }
      const span = this.#loading();
      await this.#writeTimed(buffer.bytes);
      this.#spans.end(span, buffer.bytes.length);
      buffer.release();
    }
  }

  #takeConfig(bytes: Buffer): void {
    if (this.#config || this.#stateLoaded === undefined) throw this.#wrong('a configuration that cannot be there');
    this.#loadConfig(() => bytes);
  }

  /** When its state is loaded, by which time `config` gives what to load. */
  #loadConfig(config: () => Buffer): void {
    this.#config = true;
    void this.#engine
      .run({
        name: `${this.device.name} config`,
        kind: 'config',
        lock: this.device.needsMachineLock,
        after: this.#stateLoaded!,
        run: async () => {
          const bytes = config();
          const span = this.#spans.begin(this.device.name, 'config');
          await this.device.loadConfig(bytes);
          this.#spans.end(span, bytes.length);
          this.#record.configured(nowMs() - span.startMs);
        },
      })
      .catch(() => {});
  }

  #fail(error: Error): void {
    this.#stop(error);
    this.#engine.failed(error);
  }

  /** Whoever waits for the device waits no more. */
  #stop(error: Error): void {
    this.#failure ??= error;
    this.#news.wake();
  }

  #wrong(what: string): Error {
    return operationFailed(this.device.name, 'write data', ERRNO.EINVAL, `the stream has ${what}`);
  }
}
