/**
 * Channels of a postcopy between two embedded machines are cut at any byte behind the switchover, in any way, and again while it recovers: both ends
 * pause, are connected anew, and at the end every page and register is right.
 */
import assert from 'node:assert/strict';
import { assertCompleted } from '../support/completed.ts';
import type { CutDirection, CutPlan } from '../support/cut-proxy.ts';
import { PostcopyMove } from '../support/postcopy-move.ts';
import type { Campaign, Rig, Row } from './campaign.ts';
import { type Census, census, expectCensus } from './census.ts';
import { inTime } from './deadline.ts';
import { awaitIncoming, expectOnly, type PairMachine, pairMachine, verifyWhole } from './pair-machine.ts';
import type { Random } from './random.ts';

const MIB = 1024 * 1024;
const RAM = 8 * MIB;
/** A migration takes a fifth of a second; on a busy machine it may take this long, ms. */
const DEADLINE_MS = 60_000;
const CHANNELS_MAX = 4;
/** What one connection carries on the way to the destination, and back, at the least in most cases. */
const PAGES_BYTES = MIB;
const REQUESTS_BYTES = 1024;

const MACHINES = {
  'workload-11.1, 4 KiB': { machineType: 'workload-11.1' },
  'workload-11.1, 2 MiB': { machineType: 'workload-11.1', hostPage: 2 * MIB },
  'workload-7.2, 4 KiB': { machineType: 'workload-7.2' },
} as const;
type Machines = keyof typeof MACHINES;
const NAMES = Object.keys(MACHINES) as Machines[];

interface PostcopyCut {
  readonly machines: Machines;
  /** Preempt channels. */
  readonly channels: number;
  /** Of the background, bytes/s. */
  readonly bandwidth: number;
  /** The first counts from the moment in which the guest runs at the destination, the others from the beginning of their connections. */
  readonly cuts: readonly CutPlan[];
  /** Who gives up when nothing passes any more. */
  readonly pausedBy: 'source' | 'destination';
}

export const postcopyCuts: Campaign<PostcopyCut> = {
  name: 'cuts of a postcopy between embedded machines',
  groups: ['machines', 'preempt channels', 'channel', 'how', 'cuts', 'source says'],
  open: (seed) => PostcopyCutRig.open(seed),
};

interface Pair {
  source: PairMachine;
  destination: PairMachine;
}

class PostcopyCutRig implements Rig<PostcopyCut> {
  readonly #pairs: ReadonlyMap<string, Pair>;
  readonly #census: Census;

  private constructor(pairs: ReadonlyMap<string, Pair>, before: Census) {
    this.#pairs = pairs;
    this.#census = before;
  }

  static async open(seed: number): Promise<PostcopyCutRig> {
    const pairs = new Map<string, Pair>();
    for (const name of NAMES) {
      const options = { ram: RAM, vcpus: 2, dirtyRate: 4e6, seed, ...MACHINES[name] };
      const pair = {
        source: await pairMachine(options, undefined, false),
        destination: await pairMachine(options, undefined, true),
      };
      await pair.source.machine.resume();
      pairs.set(name, pair);
    }
    // The first connections of a process load what stays loaded.
    const { source, destination } = pairs.get(NAMES[0]!)!;
    const moved = await PostcopyMove.between({
      source: source.machine,
      destination: destination.machine,
      preempt: true,
      preemptChannels: { source: CHANNELS_MAX, destination: CHANNELS_MAX },
    });
    moved.outgoing.startPostcopy();
    await inTime(moved.completed(), DEADLINE_MS);
    pairs.set(NAMES[0]!, { source: destination, destination: source });
    await awaitIncoming(source);
    return new PostcopyCutRig(pairs, await census());
  }

  parameters(random: Random, index: number): PostcopyCut {
    const channels = random.pick([0, 0, 1, 1, 2, CHANNELS_MAX]);
    const cuts = Array.from({ length: random.pick([1, 1, 2, 4]) }, () => drawCut(random, channels));
    return {
      machines: NAMES[index % NAMES.length]!,
      channels,
      bandwidth: random.pick([2e6, 5e6, 20e6]),
      cuts,
      pausedBy: random.pick(['source', 'destination'] as const),
    };
  }

  async run(parameters: PostcopyCut): Promise<Row | undefined> {
    const { machines, channels, cuts } = parameters;
    const pair = this.#pairs.get(machines)!;
    const { source, destination } = pair;
    const moved = await PostcopyMove.between({
      source: source.machine,
      destination: destination.machine,
      preempt: channels > 0,
      ...(channels > 1 && { preemptChannels: { source: channels, destination: channels } }),
      bandwidth: parameters.bandwidth,
    });
    const made = await inTime(cutAndRecover(moved, parameters), DEADLINE_MS);
    assert.equal(source.machine.runState, 'postmigrate');
    await expectOnly(destination, source, DEADLINE_MS);
    await verifyWhole(destination);
    Object.assign(pair, { source: destination, destination: source });
    await awaitIncoming(source);
    await expectCensus(this.#census);
    if (made === 0) return undefined;
    return {
      machines,
      'preempt channels': String(channels),
      channel: `${cuts[0]!.connection === 0 ? 'main' : 'preempt'} ${cuts[0]!.direction}`,
      how: cuts[0]!.how,
      cuts: String(made),
      at: cuts.map(({ after }) => after).join(', '),
      'source says': moved.outgoing.status,
    };
  }

  async dispose(): Promise<void> {
    const machines = [...this.#pairs.values()].flatMap(({ source, destination }) => [source, destination]);
    await Promise.all(machines.map((machine) => machine.close()));
  }
}

function drawCut(random: Random, channels: number): CutPlan {
  const direction = random.pick(['toTarget', 'toTarget', 'toClient'] as const);
  // As many cuts between 10 and 100 bytes as between 10 and 100 KiB: recoveries are short, and so are requests.
  const magnitude = random.int(0, Math.log2(direction === 'toTarget' ? PAGES_BYTES : REQUESTS_BYTES));
  const after = random.int(2 ** magnitude - 1, 2 ** (magnitude + 1) - 2);
  // On a preempt channel nothing comes back.
  const isPreempt = channels > 0 && direction === 'toTarget' && random.chance(channels / (channels + 1));
  const connection = isPreempt ? random.int(1, channels) : 0;
  return { direction, after, connection, how: random.pick(['end', 'reset', 'blackhole'] as const) };
}

/** Runs the migration to its end through all cuts; how many were made. */
async function cutAndRecover(moved: PostcopyMove, { cuts, pausedBy }: PostcopyCut): Promise<number> {
  const first = cuts[0]!;
  const passed = counted(moved, first);
  const active = moved.there.next('postcopy-active');
  moved.outgoing.startPostcopy();
  const running = moved.run();
  await moved.during(active);
  let both = moved.both('postcopy-paused');
  moved.proxy.arm({ ...first, after: passed() + first.after });
  let made = 0;
  for (;;) {
    const { proxy } = moved;
    const how = cuts[made]?.how;
    // Who has heard nothing for a while is told to give up; the other one hears of that.
    if (how === 'blackhole') void proxy.cut.then(() => giveUp(moved, pausedBy));
    // The last word was lost: everything is there, and only the source does not know.
    const unconfirmed = Promise.all([moved.here.next('postcopy-paused'), moved.there.next('completed')]);
    const ended = await Promise.race([
      running.then(() => 'over' as const),
      both.then(
        () => 'paused' as const,
        () => 'over' as const,
      ),
      unconfirmed.then(() => 'unconfirmed' as const),
    ]);
    if (ended === 'unconfirmed') moved.outgoing.abandon();
    if (ended !== 'paused') break;
    made++;
    both = moved.both('postcopy-paused');
    await moved.reconnect(cuts[made]);
  }
  both.catch(() => {});
  const { source, destination } = await running;
  assertCompleted(destination);
  if (destination.confirmed) assertCompleted(source);
  return made;
}

/** Bytes of that connection and direction so far. */
function counted(moved: PostcopyMove, cut: { readonly direction: CutDirection; readonly connection?: number }) {
  let count = 0;
  moved.proxy.onBytes = (direction, bytes, connection) => {
    if (direction === cut.direction && connection === cut.connection) count += bytes.length;
  };
  return () => count;
}

function giveUp(moved: PostcopyMove, side: PostcopyCut['pausedBy']): void {
  const { proxy } = moved;
  const migration = side === 'source' ? moved.outgoing : moved.incoming;
  if (migration.status === 'postcopy-active' || migration.status === 'postcopy-recover') migration.postcopy.pause();
  proxy.sever('reset');
}
