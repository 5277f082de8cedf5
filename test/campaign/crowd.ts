/** Sixteen migrations at once in one process: some are cut, some cancelled, and those beside them neither notice nor suffer. */
import { setTimeout as pause } from 'node:timers/promises';
import type { Campaign, Rig, Row } from './campaign.ts';
import { type Census, census, expectCensus } from './census.ts';
import { drawCut } from './cut-link.ts';
import { EmbeddedPair, type MoveParameters } from './pair.ts';
import type { Random } from './random.ts';

const PAIRS = 16;
const RAM = 2 * 1024 * 1024;
/** They begin within this time, ms. */
const SPREAD_MS = 300;

interface Member {
  readonly startMs: number;
  /** Neither cut nor cancelled: it must go well, and is verified. */
  readonly whole: boolean;
  readonly move: MoveParameters;
}

export const crowd: Campaign<readonly Member[]> = {
  name: `${PAIRS} migrations at once`,
  groups: ['migrations', 'failures'],
  open: (seed) => CrowdRig.open(seed),
};

class CrowdRig implements Rig<readonly Member[]> {
  readonly #pairs: EmbeddedPair[] = [];
  #census: Census | undefined;

  static async open(seed: number): Promise<CrowdRig> {
    const rig = new CrowdRig();
    try {
      for (let number = 0; number < PAIRS; number++) {
        rig.#pairs.push(await EmbeddedPair.open({ ram: RAM, vcpus: 1, dirtyRate: 400_000, seed: seed + number }));
      }
      rig.#census = await census();
      return rig;
    } catch (error) {
      await rig.dispose();
      throw error;
    }
  }

  parameters(random: Random): readonly Member[] {
    return this.#pairs.map(({ measured }) => {
      const fate = random.pick(['whole', 'cut', 'cancelled'] as const);
      const startMs = random.int(0, SPREAD_MS);
      if (fate === 'whole') return { startMs, whole: true, move: {} };
      const maxBandwidth = random.pick([0, 10e6]);
      if (fate === 'cut') return { startMs, whole: false, move: { maxBandwidth, cut: drawCut(random, measured) } };
      return { startMs, whole: false, move: { maxBandwidth, cancelAfterMs: random.int(0, SPREAD_MS) } };
    });
  }

  async run(members: readonly Member[]): Promise<Row> {
    const moves = await Promise.allSettled(
      members.map(async ({ startMs, whole, move }, index) => {
        const pair = this.#pairs[index]!;
        await pause(startMs);
        if (whole) await pair.moveWhole();
        else return (await pair.move(move)).source.status;
        return 'verified';
      }),
    );
    const failures = moves.flatMap((settled, index) => {
      if (settled.status === 'fulfilled') return [];
      return [new Error(`migration ${index}`, { cause: settled.reason })];
    });
    if (failures.length > 0) throw failures[0];
    await expectCensus(this.#census!);
    const counts = new Map<string, number>();
    for (const settled of moves) {
      if (settled.status === 'fulfilled') counts.set(settled.value, (counts.get(settled.value) ?? 0) + 1);
    }
    const ends = [...counts].sort().map(([end, count]) => `${count} ${end}`);
    return { migrations: String(members.length), ends: ends.join(', ') };
  }

  async dispose(): Promise<void> {
    await Promise.all(this.#pairs.map((pair) => pair.dispose()));
  }
}
