/** The link between two embedded machines is cut anywhere, in either direction, in any way, while the guest dirties its memory. */
import type { Campaign, Rig, Row } from './campaign.ts';
import { type Census, census, expectCensus } from './census.ts';
import { type Cut, cutRow, drawCut } from './cut-link.ts';
import { bothSaid } from './errors.ts';
import { EmbeddedPair, type MoveParameters } from './pair.ts';
import type { Random } from './random.ts';

const RAM = 4 * 1024 * 1024;
/** Every so many cuts, a migration that is not cut, and all its pages verified. */
const WHOLE_EVERY = 10;

type EmbeddedCut = MoveParameters & { readonly cut: Cut };

export const embeddedCuts: Campaign<EmbeddedCut> = {
  name: 'cuts between embedded machines',
  groups: ['place', 'how', 'runs at', 'source says'],
  open: (seed) => EmbeddedCutRig.open(seed),
};

class EmbeddedCutRig implements Rig<EmbeddedCut> {
  readonly #pair: EmbeddedPair;
  readonly #census: Census;
  #cases = 0;

  private constructor(pair: EmbeddedPair, before: Census) {
    this.#pair = pair;
    this.#census = before;
  }

  static async open(seed: number): Promise<EmbeddedCutRig> {
    const pair = await EmbeddedPair.open({ ram: RAM, vcpus: 2, dirtyRate: 4e6, seed });
    return new EmbeddedCutRig(pair, await census());
  }

  parameters(random: Random): EmbeddedCut {
    return {
      cut: drawCut(random, this.#pair.measured),
      maxBandwidth: random.pick([0, 20e6, 60e6]),
      xbzrle: random.chance(0.25),
      pauses: random.chance(0.25),
    };
  }

  async run(parameters: EmbeddedCut): Promise<Row | undefined> {
    const ends = await this.#pair.move(parameters);
    await expectCensus(this.#census);
    if (++this.#cases % WHOLE_EVERY === 0) await this.#pair.moveWhole();
    const { cutAt, landmarks, runsAt } = ends;
    if (cutAt === undefined) return undefined;
    return {
      ...cutRow(parameters.cut, cutAt, landmarks),
      'runs at': runsAt,
      ...bothSaid(ends),
    };
  }

  async dispose(): Promise<void> {
    await this.#pair.dispose();
  }
}
