/**
 * Buffers of device state on their way from channels, on which they come in any order, to devices, which take them in theirs. Pure: numbers in an
 * Int32Array (which may lie in shared memory); who calls holds the lock, waits and copies.
 *
 * A buffer is offered when its header has been read, and gets a slot of the pool or has to wait; a channel that waits reads nothing more. What may
 * wait, and why nothing waits for ever:
 *
 *   - A device is starving while the buffer that it needs next has no slot. That buffer is never made to wait: for every starving device a slot is
 *     kept free.
 *   - While any device starves, a channel waits for no device's queue, as the buffer that is needed may be behind the one it holds. So a slow device
 *     never holds back a fast one, and two channels that hold each other's next buffer both go on. The bound on a device's queue gives way.
 *   - What remains is a full pool. A sender that hands the buffers of a device over in order, and whose channels keep order, gets through any pool: of
 *     all buffers handed over and not in place yet the first one is the next on its channel and the next of its device. Only an order
 *     that no such sender makes can end with all channels waiting and all devices starving (`isStuck`): an error.
 *
 * When no device starves all of them have work, and whoever waits is woken by the next `release`.
 */
import { assert } from '../../base/index.ts';

/** What `offer` says if it is not a slot. */
export const OFFER = {
  /** Offer it again after the next `release`. */
  WAIT: -1,
  /** That index has come already. */
  DUPLICATE: -2,
  /** Behind the device's last one. */
  BEHIND_LAST: -3,
  /** It claims to be the last, but a later one has come. */
  NOT_LAST: -4,
} as const;

export interface ReassemblyLimits {
  readonly devices: number;
  /** Slots of the pool; more than devices. */
  readonly slots: number;
  /** Buffers of one device that have slots, when no device starves; at least 1. */
  readonly queuedMax: number;
}

/** The words of all devices begin behind these. */
const AT = { FREE: 0, FREE_TOP: 1, STARVING: 2, DONE: 3, DEVICES: 4 } as const;
/** Of a device. Lists of slots are ordered by index; NONE ends them. LAST: index of the configuration, unknown: 0xffffffff. */
const DEVICE = { NEXT: 0, HEAD: 1, TAIL: 2, QUEUED: 3, LAST: 4, WORDS: 5 } as const;
/** Of a slot. BELOW: the next free one while it is free. */
const SLOT = { INDEX: 0, ABOVE: 1, BELOW: 2, STATE: 3, DEVICE: 4, WORDS: 5 } as const;
const STATE = { FREE: 0, RECEIVING: 1, HERE: 2, LOADING: 3 } as const;
const NONE = -1;

export class Reassembly {
  readonly #words: Int32Array;
  readonly #limits: ReassemblyLimits;
  readonly #slotsAt: number;

  static words({ devices, slots }: ReassemblyLimits): number {
    return AT.DEVICES + devices * DEVICE.WORDS + slots * SLOT.WORDS;
  }

  /** `words`: as many as `words` says; another thread's view of the same ones if `fresh` is false. */
  constructor(words: Int32Array, limits: ReassemblyLimits, fresh: boolean) {
    const { devices, slots, queuedMax } = limits;
    assert(slots > devices && queuedMax >= 1, 'a slot for each device, and one to wait in');
    this.#words = words;
    this.#limits = limits;
    this.#slotsAt = AT.DEVICES + devices * DEVICE.WORDS;
    if (fresh) this.#clear();
  }

  #clear(): void {
    const words = this.#words;
    const { devices, slots } = this.#limits;
    words[AT.FREE] = slots;
    words[AT.FREE_TOP] = 0;
    words[AT.STARVING] = devices;
    words[AT.DONE] = 0;
    for (let device = 0; device < devices; device++) {
      const at = this.#device(device);
      words[at + DEVICE.NEXT] = 0;
      words[at + DEVICE.HEAD] = NONE;
      words[at + DEVICE.TAIL] = NONE;
      words[at + DEVICE.QUEUED] = 0;
      words[at + DEVICE.LAST] = NONE;
    }
    for (let slot = 0; slot < slots; slot++) {
      words[this.#slot(slot) + SLOT.STATE] = STATE.FREE;
      words[this.#slot(slot) + SLOT.BELOW] = slot + 1 < slots ? slot + 1 : NONE;
    }
  }

  /** A slot for buffer `index` of the device, or one of OFFER. */
  offer(device: number, index: number, isLast: boolean): number {
    const words = this.#words;
    const at = this.#device(device);
    const next = words[at + DEVICE.NEXT]! >>> 0;
    if (index < next) return OFFER.DUPLICATE;
    if (index > words[at + DEVICE.LAST]! >>> 0) return OFFER.BEHIND_LAST;
    let below = words[at + DEVICE.TAIL]!;
    if (isLast && below !== NONE && this.index(below) > index) return OFFER.NOT_LAST;
    while (below !== NONE && this.index(below) > index) below = words[this.#slot(below) + SLOT.BELOW]!;
    if (below !== NONE && this.index(below) === index) return OFFER.DUPLICATE;
    if (index === next) words[AT.STARVING]!--;
    else if (!this.#hasRoom(at)) return OFFER.WAIT;
    if (isLast) words[at + DEVICE.LAST] = index;
    return this.#insert(device, index, below);
  }

  /** The slot's bytes are there. True if the device can take it now. */
  arrived(slot: number): boolean {
    const words = this.#words;
    const at = this.#slot(slot);
    assert(words[at + SLOT.STATE] === STATE.RECEIVING, 'a slot is filled once');
    words[at + SLOT.STATE] = STATE.HERE;
    return this.ready(words[at + SLOT.DEVICE]!) === slot;
  }

  /** Slot of the buffer that the device can take next, -1 if it is not here, or one before it is being loaded. */
  ready(device: number): number {
    const words = this.#words;
    const at = this.#device(device);
    const head = words[at + DEVICE.HEAD]!;
    if (head === NONE || this.index(head) !== words[at + DEVICE.NEXT]! >>> 0) return NONE;
    return words[this.#slot(head) + SLOT.STATE] === STATE.HERE ? head : NONE;
  }

  /** `ready`, and it is being loaded from now on: nobody else gets one of the device until `release`. */
  take(device: number): number {
    const slot = this.ready(device);
    if (slot !== NONE) this.#words[this.#slot(slot) + SLOT.STATE] = STATE.LOADING;
    return slot;
  }

  /** The buffer that was taken has been loaded: its slot is free, and whoever waits may offer again. True if the device can take another. */
  release(slot: number): boolean {
    const words = this.#words;
    const slotAt = this.#slot(slot);
    assert(words[slotAt + SLOT.STATE] === STATE.LOADING, 'a slot is released by who took it');
    const device = words[slotAt + SLOT.DEVICE]!;
    const at = this.#device(device);
    const index = this.index(slot);
    const above = words[slotAt + SLOT.ABOVE]!;
    words[at + DEVICE.HEAD] = above;
    if (above === NONE) words[at + DEVICE.TAIL] = NONE;
    else words[this.#slot(above) + SLOT.BELOW] = NONE;
    words[at + DEVICE.NEXT] = index + 1;
    words[at + DEVICE.QUEUED]!--;
    words[slotAt + SLOT.STATE] = STATE.FREE;
    words[slotAt + SLOT.BELOW] = words[AT.FREE_TOP]!;
    words[AT.FREE_TOP] = slot;
    words[AT.FREE]!++;
    if (index === words[at + DEVICE.LAST]! >>> 0) words[AT.DONE]!++;
    else if (above === NONE || this.index(above) !== index + 1) words[AT.STARVING]!++;
    return this.ready(device) !== NONE;
  }

  /** The device has taken its last buffer. */
  isDone(device: number): boolean {
    const at = this.#device(device);
    const last = this.#words[at + DEVICE.LAST]!;
    return last !== NONE && this.#words[at + DEVICE.NEXT] === last + 1;
  }

  /** Index of the buffer that the device needs next. */
  next(device: number): number {
    return this.#words[this.#device(device) + DEVICE.NEXT]! >>> 0;
  }

  isLast(slot: number): boolean {
    const at = this.#device(this.#words[this.#slot(slot) + SLOT.DEVICE]!);
    return this.index(slot) === this.#words[at + DEVICE.LAST]! >>> 0;
  }

  /** Buffers of the device that have slots. */
  queued(device: number): number {
    return this.#words[this.#device(device) + DEVICE.QUEUED]!;
  }

  get free(): number {
    return this.#words[AT.FREE]!;
  }

  /** Devices whose next buffer has no slot. */
  get starving(): number {
    return this.#words[AT.STARVING]!;
  }

  /** No device has anything to do: if no channel brings anything either, nothing will ever move. */
  get allStarve(): boolean {
    return this.#words[AT.STARVING]! + this.#words[AT.DONE]! === this.#limits.devices;
  }

  /** For a buffer that is not the one its device needs next. */
  #hasRoom(at: number): boolean {
    const words = this.#words;
    const starving = words[AT.STARVING]!;
    if (words[AT.FREE]! <= starving) return false;
    return starving > 0 || words[at + DEVICE.QUEUED]! < this.#limits.queuedMax;
  }

  #insert(device: number, index: number, below: number): number {
    const words = this.#words;
    const at = this.#device(device);
    const slot = words[AT.FREE_TOP]!;
    assert(slot !== NONE, 'a slot is kept for every starving device');
    const slotAt = this.#slot(slot);
    words[AT.FREE_TOP] = words[slotAt + SLOT.BELOW]!;
    words[AT.FREE]!--;
    words[at + DEVICE.QUEUED]!++;
    const above = below === NONE ? words[at + DEVICE.HEAD]! : words[this.#slot(below) + SLOT.ABOVE]!;
    words[slotAt + SLOT.INDEX] = index;
    words[slotAt + SLOT.ABOVE] = above;
    words[slotAt + SLOT.BELOW] = below;
    words[slotAt + SLOT.STATE] = STATE.RECEIVING;
    words[slotAt + SLOT.DEVICE] = device;
    if (below === NONE) words[at + DEVICE.HEAD] = slot;
    else words[this.#slot(below) + SLOT.ABOVE] = slot;
    if (above === NONE) words[at + DEVICE.TAIL] = slot;
    else words[this.#slot(above) + SLOT.BELOW] = slot;
    return slot;
  }

  /** Of the buffer in the slot. */
  index(slot: number): number {
    return this.#words[this.#slot(slot) + SLOT.INDEX]! >>> 0;
  }

  #device(device: number): number {
    return AT.DEVICES + device * DEVICE.WORDS;
  }

  #slot(slot: number): number {
    return this.#slotsAt + slot * SLOT.WORDS;
  }
}
