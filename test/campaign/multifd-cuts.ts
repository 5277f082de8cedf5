/**
 * One multifd channel between two embedded machines is cut at any byte, in any way, while the guest dirties its memory: the migration fails, promptly
 * and naming the channel, and the guest runs on; or it was over already.
 */
import assert from 'node:assert/strict';
import type { Campaign, Rig, Row } from './campaign.ts';
import { type Census, census, expectCensus } from './census.ts';
import type { ChannelCut } from './cut-link.ts';
import { bothSaid, expectChannel, INITIAL_PACKET_BYTES } from './errors.ts';
import { EmbeddedPair, type MoveParameters } from './pair.ts';
import type { Random } from './random.ts';

const RAM = 4 * 1024 * 1024;
/** Every so many cuts, a migration that is not cut, and all its pages verified. */
const WHOLE_EVERY = 10;
/** Who says less cannot be told from a stranger (arrivals.test.ts). */
const MAGIC_BYTES = 4;
/** Initial packet and the SYNC of the START section. */
const START_BYTES = INITIAL_PACKET_BYTES + 1344;
const BLACKHOLE_MS = [50, 400] as const;
/** After each section, after each round. */
const MACHINE_TYPES = ['workload-8.0', 'workload-11.1'] as const;

interface MultifdCut {
  readonly machineType: (typeof MACHINE_TYPES)[number];
  readonly cut: ChannelCut;
  readonly multifd: NonNullable<MoveParameters['multifd']>;
  readonly maxBandwidth: number;
  readonly pauses: boolean;
}

export const multifdCuts: Campaign<MultifdCut> = {
  name: 'cuts of multifd channels between embedded machines',
  groups: ['machine type', 'place', 'how', 'runs at', 'source says'],
  open: (seed) => MultifdCutRig.open(seed),
};

class MultifdCutRig implements Rig<MultifdCut> {
  readonly #pairs: ReadonlyMap<string, EmbeddedPair>;
  readonly #census: Census;
  #cases = 0;

  private constructor(pairs: ReadonlyMap<string, EmbeddedPair>, before: Census) {
    this.#pairs = pairs;
    this.#census = before;
  }

  static async open(seed: number): Promise<MultifdCutRig> {
    const pairs = new Map<string, EmbeddedPair>();
    for (const machineType of MACHINE_TYPES) {
      const pair = await EmbeddedPair.open({ ram: RAM, vcpus: 2, dirtyRate: 4e6, seed, machineType });
      pairs.set(machineType, pair);
      // The first channels of a process load what stays loaded.
      await pair.moveWhole({ multifd: { channels: 2, compression: 'zstd' } });
    }
    return new MultifdCutRig(pairs, await census());
  }

  parameters(random: Random, index: number): MultifdCut {
    const channels = random.pick([1, 2, 4, 16]);
    const how = random.pick(['end', 'reset', 'blackhole'] as const);
    const after = random.weighted([
      [15, random.int(MAGIC_BYTES, INITIAL_PACKET_BYTES)],
      [15, random.int(INITIAL_PACKET_BYTES, START_BYTES)],
      [70, random.int(START_BYTES, Math.floor(RAM / channels))],
    ] as const);
    const resetAfterMs = how === 'blackhole' ? random.int(...BLACKHOLE_MS) : 0;
    return {
      machineType: MACHINE_TYPES[index % MACHINE_TYPES.length]!,
      cut: { channel: random.int(0, channels - 1), after, how, resetAfterMs },
      multifd: { channels, compression: random.pick(['none', 'none', 'zlib', 'zstd'] as const) },
      maxBandwidth: random.pick([0, 20e6, 60e6]),
      pauses: random.chance(0.25),
    };
  }

  async run(parameters: MultifdCut): Promise<Row | undefined> {
    const { machineType, cut, multifd } = parameters;
    const pair = this.#pairs.get(machineType)!;
    const ends = await pair.move(parameters);
    const { source, destination, cutAt, runsAt } = ends;
    await expectCensus(this.#census);
    if (++this.#cases % WHOLE_EVERY === 0) await pair.moveWhole({ multifd });
    if (cutAt === undefined) return undefined;
    if (runsAt !== 'destination') {
      assert.equal(runsAt, 'source');
      assert(source.status === 'failed' && destination.error !== undefined);
      expectChannel(cut.channel, cutAt, [source.error, destination.error]);
    }
    return {
      'machine type': machineType,
      place: cutAt < INITIAL_PACKET_BYTES ? 'initial packet' : cutAt < START_BYTES ? 'START' : 'pages',
      how: cut.how,
      at: `byte ${cutAt} of channel ${cut.channel} of ${multifd.channels}`,
      'runs at': runsAt,
      ...bothSaid(ends),
    };
  }

  async dispose(): Promise<void> {
    await Promise.all([...this.#pairs.values()].map((pair) => pair.dispose()));
  }
}
