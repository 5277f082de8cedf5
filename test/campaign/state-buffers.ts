/**
 * Interleavings of device state: buffers of several devices on several channels, in orders that a sender can make and in orders that none can, with
 * queue bounds from one buffer to none and pools from the smallest to one that holds everything. The reassembly that the threads use, and a
 * scheduler instead of threads: nothing is timed, everything comes again from its seed.
 */
import assert from 'node:assert/strict';
import { OFFER, Reassembly } from '../../src/dataplane/device-state/reassembly.ts';
import type { Campaign, Rig, Row } from './campaign.ts';
import { Random } from './random.ts';

/** Interleavings of one case. */
const BUNDLE = 100;

/** How many buffers may wait for one device. */
const BOUNDS = {
  'one buffer': () => 1,
  some: (random: Random) => random.int(2, 8),
  unlimited: () => Number.MAX_SAFE_INTEGER,
} as const;
type Bound = keyof typeof BOUNDS;
const ALL_BOUNDS = Object.keys(BOUNDS) as Bound[];

export interface Bundle {
  readonly seed: number;
  /** `sender`: each device's buffers are handed over in order, channels keep order. `any`: shuffled at will. */
  readonly order: 'sender' | 'any';
  /** Who loads: a consumer of each device, or the channel that completes a run. */
  readonly loads: 'consumer' | 'channel';
  readonly bound: Bound;
}

export const stateBuffers: Campaign<Bundle> = {
  name: `${BUNDLE} interleavings of device state`,
  groups: ['order', 'loads', 'bound'],
  open: async () => new Simulations(),
};

class Simulations implements Rig<Bundle> {
  parameters(random: Random, index: number): Bundle {
    return {
      seed: random.int(1, 1 << 30),
      order: index % 2 === 0 ? 'sender' : 'any',
      loads: index % 4 < 2 ? 'consumer' : 'channel',
      bound: ALL_BOUNDS[Math.floor(index / 4) % ALL_BOUNDS.length]!,
    };
  }

  async run(bundle: Bundle): Promise<Row> {
    const { seed, order, loads, bound } = bundle;
    let stuck = 0;
    for (let number = 0; number < BUNDLE; number++) {
      const simulation = new Simulation(new Random(seed, number), bundle);
      try {
        if (simulation.run() === 'stuck') stuck++;
      } catch (error) {
        throw new Error(`interleaving ${number} of seed ${seed}: ${simulation}`, { cause: error });
      }
    }
    return { order, loads, bound, stuck: String(stuck) };
  }

  async dispose(): Promise<void> {}
}

interface Packet {
  readonly device: number;
  readonly index: number;
}

interface Channel {
  readonly packets: Packet[];
  /** Slot that is being filled, or loaded. */
  slot: number;
  /** `waiting`: its first packet was offered in vain, and nothing has been released since. */
  doing: 'reading' | 'waiting' | 'filling' | 'loading';
}

interface Device {
  readonly last: number;
  /** Chances among 100 to make a step when drawn. */
  readonly speed: number;
  /** Indices in the order in which they were loaded. */
  readonly loaded: number[];
  slot: number;
}

export class Simulation {
  readonly #random: Random;
  readonly #loads: Bundle['loads'];
  readonly #order: Bundle['order'];
  readonly #slots: number;
  readonly #queuedMax: number;
  readonly #devices: readonly Device[];
  readonly #channels: readonly Channel[];
  readonly #reassembly: Reassembly;
  readonly #total: number;

  constructor(random: Random, { order, loads, bound }: Omit<Bundle, 'seed'>) {
    this.#random = random;
    this.#order = order;
    this.#loads = loads;
    const deviceCount = random.int(1, 5);
    this.#devices = Array.from({ length: deviceCount }, () => {
      return { last: random.int(0, 12), speed: random.pick([100, 100, 30, 2]), loaded: [], slot: -1 };
    });
    this.#total = this.#devices.reduce((sum, { last }) => sum + last + 1, 0);
    this.#slots = random.pick([deviceCount + 1, deviceCount + random.int(1, 8), deviceCount + this.#total]);
    this.#queuedMax = BOUNDS[bound](random);
    this.#channels = Array.from({ length: random.int(1, 4) }, () => ({ packets: [], slot: -1, doing: 'reading' }));
    this.#handOver();
    const limits = { devices: deviceCount, slots: this.#slots, queuedMax: this.#queuedMax };
    this.#reassembly = new Reassembly(new Int32Array(Reassembly.words(limits)), limits, true);
  }

  toString(): string {
    const packets = this.#channels.map(
      ({ packets, doing }) => `${doing} ${packets.map((p) => `${p.device}.${p.index}`).join(' ')}`,
    );
    return `${this.#order}, ${this.#loads}, ${this.#slots} slots, bound ${this.#queuedMax}, left: ${packets.join(' | ')}`;
  }

  /** To the end, or until nothing can ever move: only with an order that no sender makes, and a pool that does not hold it. */
  run(): 'whole' | 'stuck' {
    for (let step = 0; this.#devices.some((device, number) => !this.#isWhole(device, number)); step++) {
      assert.ok(step < 200_000, 'no end');
      if (this.#isStuck()) {
        assert.ok(this.#order === 'any', 'stuck with an order that a sender makes');
        assert.ok(this.#slots < this.#total, 'stuck with room for everything');
        return 'stuck';
      }
      const who = this.#random.int(0, this.#channels.length + this.#devices.length - 1);
      if (who < this.#channels.length) this.#stepChannel(this.#channels[who]!);
      else this.#stepDevice(who - this.#channels.length);
      assert.ok(this.#reassembly.free >= this.#reassembly.starving, 'a slot is kept for every starving device');
    }
    assert.equal(this.#reassembly.free, this.#slots);
    assert.equal(this.#reassembly.starving, 0);
    return 'whole';
  }

  #handOver(): void {
    const random = this.#random;
    const next = this.#devices.map(() => 0);
    for (let left = this.#total; left > 0; left--) {
      const open = next.map((_, device) => device).filter((device) => next[device]! <= this.#devices[device]!.last);
      const device = random.pick(open);
      random.pick(this.#channels).packets.push({ device, index: next[device]!++ });
    }
    if (this.#order === 'sender') return;
    for (const { packets } of this.#channels) {
      for (let i = packets.length - 1; i > 0; i--) {
        const j = random.int(0, i);
        [packets[i], packets[j]] = [packets[j]!, packets[i]!];
      }
    }
  }

  #isWhole({ loaded, last }: Device, number: number): boolean {
    assert.equal(this.#reassembly.isDone(number), loaded.length === last + 1);
    return loaded.length === last + 1;
  }

  #isStuck(): boolean {
    return (
      this.#reassembly.allStarve &&
      this.#channels.every(({ doing, packets }) => doing === 'waiting' || (doing === 'reading' && packets.length === 0))
    );
  }

  #stepChannel(channel: Channel): void {
    switch (channel.doing) {
      case 'reading':
        if (channel.packets.length > 0) this.#offer(channel, channel.packets[0]!);
        return;
      case 'waiting':
        return;
      case 'filling':
        channel.doing = 'reading';
        if (this.#reassembly.arrived(channel.slot) && this.#loads === 'channel') this.#take(channel);
        return;
      case 'loading': {
        const { device } = channel.packets[0]!;
        if (!this.#chance(device)) return;
        channel.packets.shift();
        channel.doing = 'reading';
        if (this.#loaded(device, channel.slot)) this.#take(channel, device);
      }
    }
  }

  /** While a channel loads, the packet in front is the one that it loads. */
  #take(channel: Channel, device = this.#deviceOf(channel.slot)): void {
    channel.slot = this.#reassembly.take(device);
    if (channel.slot < 0) return;
    channel.packets.unshift({ device, index: this.#reassembly.next(device) });
    channel.doing = 'loading';
  }

  #deviceOf(slot: number): number {
    return this.#devices.findIndex((_, device) => this.#reassembly.ready(device) === slot);
  }

  #offer(channel: Channel, { device, index }: Packet): void {
    const { free, starving } = this.#reassembly;
    const queued = this.#reassembly.queued(device);
    const isNeeded = index === this.#reassembly.next(device);
    const slot = this.#reassembly.offer(device, index, index === this.#devices[device]!.last);
    if (slot === OFFER.WAIT) {
      assert.ok(!isNeeded, 'what a device needs next always gets through');
      assert.ok(free <= starving || starving === 0, 'nobody waits for a queue while a device starves');
      assert.ok(free <= starving || queued >= this.#queuedMax, 'nobody waits without need');
      channel.doing = 'waiting';
      return;
    }
    assert.ok(slot >= 0, `refused: ${slot}`);
    if (starving === 0) assert.ok(queued < this.#queuedMax, 'the bound holds while all devices have work');
    channel.packets.shift();
    channel.slot = slot;
    channel.doing = 'filling';
  }

  #stepDevice(number: number): void {
    const device = this.#devices[number]!;
    if (this.#loads !== 'consumer' || !this.#chance(number)) return;
    if (device.slot < 0) device.slot = this.#reassembly.take(number);
    else {
      this.#loaded(number, device.slot);
      device.slot = -1;
    }
  }

  #chance(device: number): boolean {
    return this.#random.int(1, 100) <= this.#devices[device]!.speed;
  }

  #loaded(number: number, slot: number): boolean {
    const { loaded } = this.#devices[number]!;
    assert.equal(this.#reassembly.next(number), loaded.length, 'in order');
    loaded.push(loaded.length);
    const more = this.#reassembly.release(slot);
    // Whoever waits hears of it.
    for (const channel of this.#channels) if (channel.doing === 'waiting') channel.doing = 'reading';
    return more;
  }
}
