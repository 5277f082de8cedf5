/**
 * Machines with one to four VFs move to and fro, and the link is cut: the stream or a multifd channel, at any byte, in any way. Guest and devices
 * run on at one end, the devices as bit for bit as the guest, and nothing is left behind.
 */
import type { Campaign, Rig, Row } from './campaign.ts';
import { type Census, census, expectCensus } from './census.ts';
import { type ChannelCut, type Cut, cutRow, drawCut, type Measured } from './cut-link.ts';
import { bytesOf, DEVICE_SETS, devicesOf, guestOf, switchoverAt } from './device-sets.ts';
import { bothSaid, expectChannel, INITIAL_PACKET_BYTES } from './errors.ts';
import { EmbeddedPair, type MoveParameters } from './pair.ts';
import type { Random } from './random.ts';

/** Who says less cannot be told from a stranger (arrivals.test.ts). */
const MAGIC_BYTES = 4;
const BLACKHOLE_MS = [50, 400] as const;

/** How the state travels: in the stream, beside it on the channels, in the stream beside channels of compressed pages. */
const WAYS = {
  stream: undefined,
  channels: { channels: 3, compression: 'none' },
  'stream and channels': { channels: 2, compression: 'zstd' },
} as const satisfies Readonly<Record<string, MoveParameters['multifd']>>;
type Way = keyof typeof WAYS;
const ALL_WAYS = Object.keys(WAYS) as Way[];

interface DeviceCut {
  readonly set: number;
  readonly way: Way;
  readonly cut: Cut | ChannelCut;
  readonly maxBandwidth: number;
  readonly pauses: boolean;
  readonly switchoverAck: boolean;
}

export const deviceCuts: Campaign<DeviceCut> = {
  name: 'cuts between machines with VFs',
  groups: ['way', 'place', 'runs at', 'source says'],
  open: async (seed) => new DeviceCutRig(seed),
};

/** Cases in a row with the same machines. */
const CASES_PER_SET = 6;

/** Machines that were opened once stay, and so does what an uncut run by each way has told of its places. */
class Machines {
  readonly pair: EmbeddedPair;
  readonly #measured: Partial<Record<Way, Measured>> = {};

  constructor(pair: EmbeddedPair) {
    this.pair = pair;
  }

  async measured(way: Way): Promise<Measured> {
    if (this.#measured[way] === undefined) await this.pair.moveWhole(movedBy(way));
    this.#measured[way] ??= this.pair.measured;
    return this.#measured[way];
  }
}

class DeviceCutRig implements Rig<DeviceCut> {
  readonly #seed: number;
  readonly #open = new Map<number, Machines>();
  #census: Census | undefined;

  constructor(seed: number) {
    this.#seed = seed;
  }

  async parameters(random: Random, index: number): Promise<DeviceCut> {
    const set = Math.floor(index / CASES_PER_SET) % DEVICE_SETS.length;
    const way = random.pick(ALL_WAYS);
    const multifd = WAYS[way];
    const inStream = multifd === undefined || random.chance(0.5);
    const machines = await this.#machines(set);
    return {
      set,
      way,
      cut: inStream
        ? drawCut(random, await machines.measured(way))
        : drawChannelCut(random, multifd.channels, bytesOf(DEVICE_SETS[set]!)),
      maxBandwidth: random.pick([0, 20e6, 60e6]),
      pauses: random.chance(0.25),
      switchoverAck: random.chance(0.5),
    };
  }

  async run(parameters: DeviceCut): Promise<Row | undefined> {
    const { set, way, ...move } = parameters;
    const { cut } = move;
    const { pair } = await this.#machines(set);
    this.#census ??= await census();
    const ends = await pair.move({ ...movedBy(way), ...move });
    await expectCensus(this.#census);
    const { source, destination, cutAt, landmarks, runsAt } = ends;
    if (cutAt === undefined) return undefined;
    if ('channel' in cut && runsAt === 'source' && source.status === 'failed')
      expectChannel(cut.channel, cutAt, [source.error, destination.error]);
    return {
      devices: DEVICE_SETS[set]!.title,
      way,
      ...('channel' in cut ? { place: 'channel', how: cut.how, at: `byte ${cutAt}` } : cutRow(cut, cutAt, landmarks)),
      'runs at': runsAt,
      ...bothSaid(ends),
    };
  }

  async dispose(): Promise<void> {
    await Promise.all([...this.#open.values()].map(({ pair }) => pair.dispose()));
  }

  async #machines(set: number): Promise<Machines> {
    const known = this.#open.get(set);
    if (known !== undefined) return known;
    const devices = DEVICE_SETS[set]!;
    const pair = await EmbeddedPair.open(
      guestOf(devices, this.#seed),
      devicesOf(devices, this.#seed),
      switchoverAt(devices),
    );
    const machines = new Machines(pair);
    this.#open.set(set, machines);
    // Parallel channels load what stays loaded.
    for (const way of ALL_WAYS) await machines.measured(way);
    this.#census = undefined;
    return machines;
  }
}

function movedBy(way: Way): MoveParameters {
  const multifd = WAYS[way];
  return multifd === undefined ? {} : { multifd };
}

/** The first bytes, or anywhere in what a channel carries if all carry the same. */
function drawChannelCut(random: Random, channels: number, bytes: number): ChannelCut {
  const how = random.pick(['end', 'reset', 'blackhole'] as const);
  const after = random.chance(0.1)
    ? random.int(MAGIC_BYTES, INITIAL_PACKET_BYTES)
    : random.int(INITIAL_PACKET_BYTES, Math.floor(bytes / channels));
  const resetAfterMs = how === 'blackhole' ? random.int(...BLACKHOLE_MS) : 0;
  return { channel: random.int(0, channels - 1), after, how, resetAfterMs };
}
