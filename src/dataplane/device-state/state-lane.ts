import type { ChannelGroup } from '../channel-group.ts';
import { dataplaneError } from '../errors.ts';
import type { StateQueue } from './state-queue.ts';

/** A buffer of device state. */
export interface StateBuffer {
  /** Its owner's until `release`. In shared memory. */
  readonly bytes: Buffer;
  readonly index: number;
  /** The configuration: nothing comes behind it. */
  readonly isConfig: boolean;
  /** When all of it was in memory, monotonic ms. */
  readonly arrivedMs: number;
  /** It has been loaded: its memory is free for another one. Once. */
  release(): void;
}

/** The buffers of one device, in order, for the consumer that loads them: the device's load thread as main sees it. */
export class StateLane {
  readonly #queue: StateQueue;
  readonly #device: number;
  readonly #group: ChannelGroup;
  readonly #loadsInThreads: boolean;
  #waits = false;

  /** `loadsInThreads`: the receiving threads load what is no configuration. */
  constructor(queue: StateQueue, device: number, group: ChannelGroup, loadsInThreads: boolean) {
    this.#queue = queue;
    this.#device = device;
    this.#group = group;
    this.#loadsInThreads = loadsInThreads;
  }

  /** Somebody wants the next buffer, and it has not come. */
  get waits(): boolean {
    return this.#waits;
  }

  /**
   * The next buffer; one at a time: only after the `release` of the one before. With a loader in the receiving threads only the configuration comes,
   * when all before it is loaded. Throws what has ended the channels, DATAPLANE_STATE_MISSING, DATAPLANE_STATE_STUCK.
   */
  async next(): Promise<StateBuffer> {
    const queue = this.#queue;
    const device = this.#device;
    let slot = -1;
    this.#waits = true;
    try {
      await this.#group.wait(() => {
        queue.want(device);
        slot = this.#loadsInThreads ? queue.takeConfig(device) : queue.take(device);
        if (slot < 0) this.#expectMore();
        return slot >= 0;
      });
    } finally {
      this.#waits = false;
    }
    const { index, isLast, arrivedMs } = queue.taken(slot);
    return { bytes: queue.bytes(slot), index, isConfig: isLast, arrivedMs, release: () => void queue.release(slot) };
  }

  /** Fails the channels if the device will never get another buffer. */
  #expectMore(): void {
    const { threads } = this.#group;
    const { devices, limits } = this.#queue.shared;
    const living = threads.filter(({ channel }) => !this.#group.hasEnded(channel));
    if (living.length === 0) {
      const { idstr, instance } = devices[this.#device]!;
      const index = this.#queue.next(this.#device);
      const message = `device ${idstr} ${instance}: all channels have ended, and buffer ${index} of its state has not come`;
      this.#group.fail(dataplaneError({ code: 'DATAPLANE_STATE_MISSING', idstr, instance, index }, message));
    } else if (living.every(({ channel }) => this.#queue.isHopeless(channel))) {
      this.#group.fail(stuck(limits.slots));
    }
  }
}

export function stuck(slots: number) {
  const message = `the channels hold device state that cannot go on: ${slots} buffers of memory are full, and no device can take any of them`;
  return dataplaneError({ code: 'DATAPLANE_STATE_STUCK', slots }, message);
}
