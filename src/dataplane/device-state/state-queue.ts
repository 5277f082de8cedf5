/**
 * The reassembly of device state as threads share it: its words under a lock, and the pool of memory whose slots it gives out.
 *
 *     words[LOCK]        0 free, 1 held, 2 held and somebody sleeps for it
 *     words[CHANGED]     counts what may let a waiting channel go on; channels sleep on it
 *     words[CLOSED]      1: whoever waits gives up
 *     words[OPEN]        1: devices may load (SWITCHOVER_START has come)
 *     words[ASLEEP + c]  what channel c has seen of CHANGED before it fell asleep, plus 1; 0: it is not asleep
 *     words[WANTED + d]  1: main wants to hear when device d can take a buffer
 *     ...                the reassembly's
 *
 * What was written to a slot before `arrived` is seen by whoever gets it from `take`: both hold the lock.
 */
import { nowMs } from '../../base/index.ts';
import { addressOf } from '../../native/index.ts';
import { type DeviceAddress, MULTIFD_DEVICE_BYTES_MAX } from '../../wire/multifd/index.ts';
import { OFFER, Reassembly, type ReassemblyLimits } from './reassembly.ts';

/** Instead of a slot: the queue was closed. */
export const CLOSED = -5;

const AT = { LOCK: 0, CHANGED: 1, CLOSED: 2, OPEN: 3, PER_CHANNEL: 4 } as const;

/** The lock is held for some hundred instructions; whoever waits so long for it waits for a thread that has died with it. */
const LOCK_DEADLINE_MS = 30_000;

/** What crosses to other threads. */
export interface SharedStateQueue {
  readonly devices: readonly DeviceAddress[];
  readonly channels: number;
  readonly limits: ReassemblyLimits;
  readonly words: SharedArrayBuffer;
  readonly lengths: SharedArrayBuffer;
  /** By slot: when its bytes were there, monotonic ms, f64. */
  readonly arrivals: SharedArrayBuffer;
  /** Slots of MULTIFD_DEVICE_BYTES_MAX; the host backs those that are used. */
  readonly pool: SharedArrayBuffer;
}

export class StateQueue {
  readonly shared: SharedStateQueue;
  readonly #words: Int32Array;
  readonly #lengths: Int32Array;
  readonly #arrivals: Float64Array;
  readonly #state: Reassembly;
  readonly #poolAddress: number;
  readonly #slots: readonly Buffer[];
  readonly #wantedAt: number;

  static make(
    devices: readonly DeviceAddress[],
    channels: number,
    limits: Omit<ReassemblyLimits, 'devices'>,
  ): StateQueue {
    const whole = { ...limits, devices: devices.length };
    const words = AT.PER_CHANNEL + channels + devices.length + Reassembly.words(whole);
    return new StateQueue(
      {
        devices,
        channels,
        limits: whole,
        words: new SharedArrayBuffer(words * 4),
        lengths: new SharedArrayBuffer(limits.slots * 4),
        arrivals: new SharedArrayBuffer(limits.slots * 8),
        pool: new SharedArrayBuffer(limits.slots * MULTIFD_DEVICE_BYTES_MAX),
      },
      true,
    );
  }

  /** `fresh`: only `make` says so. Throws NATIVE_UNAVAILABLE. */
  constructor(shared: SharedStateQueue, fresh = false) {
    this.shared = shared;
    const { channels, devices, limits } = shared;
    this.#words = new Int32Array(shared.words);
    this.#lengths = new Int32Array(shared.lengths);
    this.#arrivals = new Float64Array(shared.arrivals);
    this.#wantedAt = AT.PER_CHANNEL + channels;
    this.#state = new Reassembly(this.#words.subarray(this.#wantedAt + devices.length), limits, fresh);
    this.#slots = Array.from({ length: limits.slots }, (_, slot) =>
      Buffer.from(shared.pool, slot * MULTIFD_DEVICE_BYTES_MAX, MULTIFD_DEVICE_BYTES_MAX),
    );
    this.#poolAddress = addressOf(this.#slots[0]!);
  }

  /**
   * A slot for buffer `index` of the device; sleeps while there is none. `asleep` is called before: main may have to look. CLOSED, or what
   * else OFFER has but WAIT.
   */
  admit(channel: number, device: number, index: number, isLast: boolean, asleep: () => void): number {
    for (;;) {
      const changed = Atomics.load(this.#words, AT.CHANGED);
      if (this.isClosed) return CLOSED;
      const slot = this.#offer(device, index, isLast);
      if (slot !== OFFER.WAIT) return slot;
      this.#sleep(channel, changed, asleep);
    }
  }

  /** Sleeps until receiving threads may load. False: the queue was closed. */
  waitUntilOpen(channel: number, asleep: () => void): boolean {
    for (;;) {
      const changed = Atomics.load(this.#words, AT.CHANGED);
      if (this.isClosed) return false;
      if (Atomics.load(this.#words, AT.OPEN) !== 0) return true;
      this.#sleep(channel, changed, asleep);
    }
  }

  /** `length` bytes are in the slot. True if the device can take it now. */
  arrived(slot: number, length: number): boolean {
    this.#lengths[slot] = length;
    this.#arrivals[slot] = nowMs();
    this.#lock();
    try {
      return this.#state.arrived(slot);
    } finally {
      this.#unlock();
    }
  }

  /** See Reassembly.take. */
  take(device: number): number {
    this.#lock();
    try {
      return this.#state.take(device);
    } finally {
      this.#unlock();
    }
  }

  /** As `take`, but only the device's last buffer, its configuration. */
  takeConfig(device: number): number {
    this.#lock();
    try {
      const slot = this.#state.ready(device);
      return slot >= 0 && this.#state.isLast(slot) ? this.#state.take(device) : -1;
    } finally {
      this.#unlock();
    }
  }

  /** What the slot holds that the caller has taken. */
  taken(slot: number): { readonly index: number; readonly isLast: boolean; readonly arrivedMs: number } {
    return { index: this.#state.index(slot), isLast: this.#state.isLast(slot), arrivedMs: this.#arrivals[slot]! };
  }

  /** As `take`, but the device's last buffer, its configuration, is left for main. */
  takeState(device: number): number {
    this.#lock();
    try {
      const slot = this.#state.ready(device);
      return slot < 0 || this.#state.isLast(slot) ? -1 : this.#state.take(device);
    } finally {
      this.#unlock();
    }
  }

  /** See Reassembly.release; whoever waits for it wakes up. */
  release(slot: number): boolean {
    this.#lock();
    try {
      return this.#state.release(slot);
    } finally {
      this.#unlock();
      this.#change();
    }
  }

  /** Index of the buffer that the device needs next. */
  next(device: number): number {
    this.#lock();
    try {
      return this.#state.next(device);
    } finally {
      this.#unlock();
    }
  }

  /** Whether that channel sleeps and no device has work: only what other channels bring can wake it. */
  isHopeless(channel: number): boolean {
    if (Atomics.load(this.#words, AT.PER_CHANNEL + channel) === 0) return false;
    this.#lock();
    try {
      const seen = Atomics.load(this.#words, AT.PER_CHANNEL + channel);
      return seen === mark(Atomics.load(this.#words, AT.CHANGED)) && this.#state.allStarve;
    } finally {
      this.#unlock();
    }
  }

  /** Whether that channel sleeps and can wake only when devices may load. */
  isEarly(channel: number): boolean {
    const isOpen = Atomics.load(this.#words, AT.OPEN) !== 0;
    return !isOpen && Atomics.load(this.#words, AT.PER_CHANNEL + channel) !== 0;
  }

  /** All of the slot's memory. */
  room(slot: number): Buffer {
    return this.#slots[slot]!;
  }

  address(slot: number): number {
    return this.#poolAddress + slot * MULTIFD_DEVICE_BYTES_MAX;
  }

  /** What has arrived in the slot. */
  bytes(slot: number): Buffer {
    return this.#slots[slot]!.subarray(0, this.#lengths[slot]!);
  }

  /** Main wants to hear of the device's next buffer. To be set before it looks once more. */
  want(device: number): void {
    Atomics.store(this.#words, this.#wantedAt + device, 1);
  }

  /** Whether main wanted to hear of the device; it is not wanted any more. */
  wanted(device: number): boolean {
    return Atomics.exchange(this.#words, this.#wantedAt + device, 0) !== 0;
  }

  open(): void {
    Atomics.store(this.#words, AT.OPEN, 1);
    this.#change();
  }

  /** Wakes all who wait; they give up. */
  close(): void {
    Atomics.store(this.#words, AT.CLOSED, 1);
    this.#change();
  }

  get isClosed(): boolean {
    return Atomics.load(this.#words, AT.CLOSED) !== 0;
  }

  #sleep(channel: number, changed: number, asleep: () => void): void {
    Atomics.store(this.#words, AT.PER_CHANNEL + channel, mark(changed));
    asleep();
    Atomics.wait(this.#words, AT.CHANGED, changed);
    Atomics.store(this.#words, AT.PER_CHANNEL + channel, 0);
  }

  #change(): void {
    Atomics.add(this.#words, AT.CHANGED, 1);
    Atomics.notify(this.#words, AT.CHANGED);
  }

  #offer(device: number, index: number, isLast: boolean): number {
    this.#lock();
    try {
      return this.#state.offer(device, index, isLast);
    } finally {
      this.#unlock();
    }
  }

  #lock(): void {
    const words = this.#words;
    if (Atomics.compareExchange(words, AT.LOCK, 0, 1) === 0) return;
    while (Atomics.exchange(words, AT.LOCK, 2) !== 0) {
      if (Atomics.wait(words, AT.LOCK, 2, LOCK_DEADLINE_MS) === 'timed-out') {
        throw new Error('the lock of the device state queue is not given back');
      }
    }
  }

  #unlock(): void {
    if (Atomics.exchange(this.#words, AT.LOCK, 0) === 2) Atomics.notify(this.#words, AT.LOCK, 1);
  }
}

/** In ASLEEP, of one who has seen `changed`. */
function mark(changed: number): number {
  return (changed + 1) | 0 || 1;
}
