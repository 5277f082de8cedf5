/**
 * A VFIO device as a section of the main stream, on its way out (qemu-wire 7.3):
 *
 *     START   SETUP_STATE END                              the device is in PRE_COPY from here on, if it has that
 *     PART    DATA_STATE <= 1 MiB, END                     INIT_DATA_SENT in place of END once, when all initial data is out
 *     END     DATA_STATE <= 1 MiB ..., END                 machine stopped, device in STOP_COPY
 *     FULL    CONFIG_STATE config END                      `saveConfig`
 *
 * With parallel channels END and FULL have nothing but END in them: what they would carry goes as packets (`completeBeside`).
 *
 * @spec qemu hw/vfio/migration.c
 */
import { nowMs, Writer } from '../../base/index.ts';
import type { DeviceSection, InitialData, OutgoingState, PendingBytes, SourceIterable } from '../../machine/index.ts';
import { encodeVfioData, encodeVfioTag } from '../../wire/index.ts';
import { ERRNO, operationFailed } from '../errors.ts';
import type { GuardedDevice } from './guarded-device.ts';
import { OutgoingSpans } from './outgoing-spans.ts';
import { inPrecopy, RemainingState } from './remaining-state.ts';
import type { StopTarget } from './running.ts';
import type { Spans } from './spans.ts';

const VFIO_SECTION_VERSION = 1;

/** Data in one block: QEMU's reader takes any, its writer sends this at most. */
const BLOCK_BYTES = 1024 * 1024;
const HEAD_BYTES = 16;
const TAG_BYTES = 8;

const END_OF_STATE = endOfState();

function endOfState(): Buffer {
  const body = new Writer(TAG_BYTES);
  encodeVfioTag(body, 'END_OF_STATE');
  return body.bytes();
}

export class OutgoingDevice implements SourceIterable {
  readonly idstr: string;
  readonly instance: number;
  readonly version = VFIO_SECTION_VERSION;
  readonly device: GuardedDevice;
  readonly #spans: OutgoingSpans;
  readonly #remaining: RemainingState;
  readonly #settle: () => Promise<void>;
  /** Two, so that one can be filled while the other is sent; shared memory, so that a device in another thread fills it itself. */
  #blocks: readonly Buffer[] = [];
  /** Between setup and cleanup. */
  #active = false;
  #switchoverAck = false;
  #hasInitialData = false;
  #initialDataSent = false;
  /** Times that INIT_DATA_SENT was sent. */
  #announced = 0;
  /** What is left goes, or has gone, on parallel channels. */
  #beside = false;
  #sentBytes = 0;
  #sentSinceMs: number | undefined;
  /** The guest ran again after the stream had been taken to its stopped part: the destination cannot be given the rest of it. */
  #interrupted = false;
  /** What the device has said at the beginning; undefined: it has no PRE_COPY, or cannot tell. */
  #firstInitialBytes: number | undefined;

  /** `settle`: takes the device out of its session, when its migration is over. */
  constructor(device: GuardedDevice, idstr: string, instance: number, spans: Spans, settle: () => Promise<void>) {
    this.#settle = settle;
    this.device = device;
    this.idstr = idstr;
    this.instance = instance;
    this.#spans = new OutgoingSpans(spans, device.name);
    this.#remaining = new RemainingState(device, () => {
      // The destination has to be ready for that too, and say so once more.
      this.#initialDataSent = false;
    });
  }

  /** Where the device goes when the machine stops. */
  get stopTarget(): StopTarget {
    return this.#active ? 'STOP_COPY' : 'STOP';
  }

  /** Bytes of initial data when its last migration began; undefined: it has none, or cannot tell. */
  get initialBytes(): number | undefined {
    return this.#firstInitialBytes;
  }

  /** The machine is about to stop. */
  stopping(): void {
    if (this.#active) this.#spans.stopping();
  }

  /** And has, with all of its devices. */
  stopped(): void {
    this.#spans.stopped(this.#sentBytes);
  }

  /** Or has not: a device was late, and all run on. */
  notStopped(): void {
    this.#spans.notStopped();
  }

  /** It has sent a part of its state: the destination can be given the rest only by the same saving session. */
  get keepsSession(): boolean {
    return this.#active && this.#sentBytes > 0;
  }

  /** The devices of the machine run again. */
  restarted(): void {
    if (this.keepsSession) this.#interrupted = true;
  }

  /** How long the destination has had some of its data, ms; 0: it has none. */
  get sendingForMs(): number {
    return this.#sentSinceMs === undefined ? 0 : nowMs() - this.#sentSinceMs;
  }

  get initialData(): InitialData | undefined {
    if (!this.#switchoverAck) return undefined;
    return { own: this.#hasInitialData, announced: this.#announced, isDue: !this.#initialDataSent };
  }

  async setup({ switchoverAck }: { readonly switchoverAck: boolean }): Promise<Uint8Array> {
    this.#active = true;
    this.#spans.clear();
    this.device.clearArcs();
    this.#firstInitialBytes = undefined;
    this.#switchoverAck = switchoverAck;
    this.#hasInitialData = false;
    this.#announced = 0;
    this.#initialDataSent = false;
    this.#beside = false;
    this.#interrupted = false;
    this.#sentBytes = 0;
    this.#sentSinceMs = undefined;
    this.#blocks = [0, 1].map(() => Buffer.from(new SharedArrayBuffer(HEAD_BYTES + BLOCK_BYTES + TAG_BYTES)));
    const { states, precopyInfo } = this.device.features;
    if (states.preCopy && (await this.device.state()) === 'RUNNING') {
      await this.device.setState('PRE_COPY');
      // Who cannot tell when its initial data is out has nothing to announce.
      this.#hasInitialData = precopyInfo;
      this.#spans.precopy();
    }
    await this.#remaining.ask();
    if (this.#hasInitialData) this.#firstInitialBytes = this.#remaining.initialBytes;
    const body = new Writer(2 * TAG_BYTES);
    encodeVfioTag(body, 'DEV_SETUP_STATE');
    encodeVfioTag(body, 'END_OF_STATE');
    return body.bytes();
  }

  async pending(exact: boolean): Promise<PendingBytes> {
    if (exact) await this.#remaining.ask();
    return this.#remaining.pending;
  }

  async iterate(announce: boolean): Promise<Uint8Array | undefined> {
    const block = this.#blocks[0]!;
    const count = (await inPrecopy(this.device)) ? await this.#read(block) : 0;
    const announces = announce && !this.#initialDataSent && this.#remaining.initialBytes === 0;
    if (count === 0 && !announces) return undefined;
    if (announces) {
      this.#initialDataSent = true;
      this.#announced++;
    }
    const end = new Writer(TAG_BYTES);
    encodeVfioTag(end, announces ? 'DEV_INIT_DATA_SENT' : 'END_OF_STATE');
    if (count === 0) return end.bytes();
    end.bytes().copy(block, HEAD_BYTES + count);
    return block.subarray(0, HEAD_BYTES + count + TAG_BYTES);
  }

  async complete(put: (bytes: Uint8Array) => Promise<void>): Promise<void> {
    if (!this.#beside) await this.#saveRest(put);
    await put(END_OF_STATE);
  }

  /** Packets count from 0: data as the device gives it, straight into the buffers, then the configuration as its section would have it. */
  async completeBeside(channels: OutgoingState): Promise<void> {
    this.#beside = true;
    await this.#beginRest();
    for (;;) {
      const room = await channels.buffer();
      const result = await this.device.read(room.bytes);
      if (typeof result !== 'number') {
        channels.drop(room);
        break;
      }
      this.#spans.saved(result);
      this.#spans.sending();
      await channels.send(room, result, false);
      this.#spans.sent(result);
    }
    const config = await this.#config();
    const room = await channels.buffer();
    if (config.length > room.bytes.length) {
      throw operationFailed(
        this.device.name,
        'save config',
        ERRNO.E2BIG,
        `${config.length} bytes do not fit one packet`,
      );
    }
    config.copy(room.bytes);
    this.#spans.sending();
    await channels.send(room, config.length, true);
    this.#spans.sent();
  }

  async #saveRest(put: (bytes: Uint8Array) => Promise<void>): Promise<void> {
    await this.#beginRest();
    let turn = 0;
    let next = this.#read(this.#blocks[0]!);
    for (;;) {
      const count = await next;
      if (count === 0) break;
      const block = this.#blocks[turn]!;
      turn = 1 - turn;
      next = this.#read(this.#blocks[turn]!);
      // Whatever becomes of the output: a read that is under way has an owner.
      next.catch(() => {});
      this.#spans.saved(count);
      this.#spans.sending();
      await put(block.subarray(0, HEAD_BYTES + count));
      this.#spans.sent(count);
    }
  }

  async #beginRest(): Promise<void> {
    if (this.#interrupted) {
      const why =
        'the guest ran again after it had been stopped in this migration: the stream of the device cannot go on';
      throw operationFailed(this.device.name, 'read data', ERRNO.EINVAL, why);
    }
    await this.device.setState('STOP_COPY');
    this.#spans.saving();
  }

  /** The section FULL, machine stopped. */
  async saveConfig(): Promise<DeviceSection> {
    const { idstr, instance, version } = this;
    return { idstr, instance, version, body: this.#beside ? END_OF_STATE : await this.#config() };
  }

  async #config(): Promise<Buffer> {
    const config = await this.device.saveConfig();
    const body = new Writer(2 * TAG_BYTES + config.length);
    encodeVfioTag(body, 'DEV_CONFIG_STATE');
    body.raw(config);
    encodeVfioTag(body, 'END_OF_STATE');
    return Buffer.from(body.bytes());
  }

  /** Leaves the saving session; ending it may be slow, so it is not done before. A device that failed before its `setup` is settled, too. */
  async cleanup(): Promise<void> {
    this.#active = false;
    this.#blocks = [];
    this.#spans.over(this.#sentBytes);
    if (!this.device.lost) await this.#settle();
  }

  /** One block, its head in front of it; 0: nothing now, or at all. */
  async #read(block: Buffer): Promise<number> {
    const result = await this.device.read(block.subarray(HEAD_BYTES, HEAD_BYTES + BLOCK_BYTES));
    if (typeof result !== 'number') {
      this.#remaining.nothingNow();
      return 0;
    }
    const head = new Writer(HEAD_BYTES);
    encodeVfioData(head, result);
    head.bytes().copy(block);
    this.#sentBytes += result;
    this.#sentSinceMs ??= nowMs();
    await this.#remaining.wasRead(result);
    return result;
  }
}
