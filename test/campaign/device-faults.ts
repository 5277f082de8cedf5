/**
 * A device fails in a migration, at any point, in any way, on either side. Whatever it does: both ends come to an end, the guest runs on at one of
 * them, and every device there that still is one runs on with the state it had; whoever can migrate afterwards does.
 */
import assert from 'node:assert/strict';
import { explain } from '../../src/base/index.ts';
import type { IncomingResult, OutgoingMigration, OutgoingResult } from '../../src/migration/index.ts';
import { type FaultKind, type VfioMachine, vfOptions } from '../../src/vfio/index.ts';
import { testSettings } from '../support/move.ts';
import { moveOver } from '../support/move-over.ts';
import { type MachineWithVfs, machineWithVfs, type VfSide } from '../support/vf-machines.ts';
import type { Campaign, Rig, Row } from './campaign.ts';
import { inTime } from './deadline.ts';
import { TINY } from './device-sets.ts';
import { bothSaid } from './errors.ts';
import { type Course, type FaultCase, faultCases } from './fault-cases.ts';
import { expectOnly, progressOf, resetsOf, verifyWhole } from './pair-machine.ts';
import { Random } from './random.ts';

/** A device that does not answer is given up after so long, ms. */
const ANSWER_MS = 4_000;
/** The longest way: given up at the source, its state asked for, given up at the destination; and a busy machine. */
const DEADLINE_MS = 40_000;
const SLOW_MS = 300;
const SEED = 1;
const LOSES: readonly FaultKind[] = ['break', 'hang', 'die'];

export type DeviceFault = FaultCase & {
  readonly after: number;
  readonly errno: string;
};

/** All of them once, in an order of the seed's. */
export const FAULT_CASES = faultCases();

export const deviceFaults: Campaign<DeviceFault> = {
  name: 'faults of devices',
  groups: ['side', 'kind', 'way', 'runs at', 'device there'],
  open: async (seed) => new DeviceFaultRig(seed),
};

class DeviceFaultRig implements Rig<DeviceFault> {
  readonly #order: readonly FaultCase[];

  constructor(seed: number) {
    const random = new Random(seed);
    this.#order = FAULT_CASES.map((one) => ({ one, place: random.int(0, 1 << 30) }))
      .sort((a, b) => a.place - b.place)
      .map(({ one }) => one);
  }

  parameters(random: Random, index: number): DeviceFault {
    const one = this.#order[index % this.#order.length]!;
    return {
      ...one,
      // Data goes again and again. An arc is gone once, but for those by which the source's guest was started.
      after: /^(read|write) data$/.test(one.point) ? random.int(0, 2) : isOfStart(one) ? 1 : 0,
      errno: random.pick(['EIO', 'ENOMEM', 'EBUSY']),
    };
  }

  async run(parameters: DeviceFault): Promise<Row | undefined> {
    const trial = await Trial.open(parameters);
    try {
      return await trial.run();
    } finally {
      await trial.close();
    }
  }

  async dispose(): Promise<void> {}
}

interface Ended {
  readonly source: OutgoingResult;
  readonly destination: IncomingResult;
}

/** One fault: device 0 of two has it. */
class Trial {
  readonly #fault: DeviceFault;
  readonly #source: MachineWithVfs;
  readonly #destination: MachineWithVfs;

  private constructor(fault: DeviceFault, source: MachineWithVfs, destination: MachineWithVfs) {
    this.#fault = fault;
    this.#source = source;
    this.#destination = destination;
  }

  static async open(fault: DeviceFault): Promise<Trial> {
    const { states, side, point, kind, after, errno } = fault;
    const spoiled = `${point}:${kind},after=${after},errno=${errno},ms=${SLOW_MS}`;
    const sideOf = (faults: readonly string[]): VfSide => {
      const features = { p2p: states.p2p, precopy: states.preCopy };
      // Devices without P2P are written to when they have stopped; of one that is gone nobody knows what it has received.
      const peers = states.p2p && !LOSES.includes(kind) ? {} : { 'peer-rate': 0 };
      const vfs = [
        vfOptions({ ...TINY, ...features, ...peers, seed: SEED, faults }),
        vfOptions({ ...TINY, ...peers, seed: SEED + 1 }),
      ];
      const deadlines = { transitionMs: ANSWER_MS, dataMs: ANSWER_MS, answerMs: ANSWER_MS };
      return { vfs, deadlines, workload: { ram: 2 * 1024 * 1024, dirtyRate: 2e6, machineType: 'workload-11.1' } };
    };
    const source = await machineWithVfs(sideOf(side === 'source' ? [spoiled] : []), false);
    const destination = await machineWithVfs(sideOf(side === 'destination' ? [spoiled] : []), true);
    await source.machine.resume();
    return new Trial(fault, source, destination);
  }

  async close(): Promise<void> {
    await Promise.all([this.#source.close(), this.#destination.close()]);
  }

  async run(): Promise<Row | undefined> {
    const { side, kind, point, states, course, way } = this.#fault;
    const before = await progressOf(this.#source);
    const ends = await this.#migrate(course);
    const runsAt = await this.#whereItRuns(ends);
    const [runs, stands] = runsAt === 'source' ? [this.#source, this.#destination] : [this.#destination, this.#source];
    const mayHaveLost = side === runsAt;
    const lost = await this.#expectWhole(runs, stands, before, mayHaveLost);
    if (!(await this.#struck())) return undefined;
    if (ends.source.status === 'failed') this.#expectBlamed(ends.source.error, ends.destination.error);
    if (runsAt === 'source') await this.#again();
    return {
      side,
      kind,
      point,
      states: `${states.p2p ? 'P2P' : 'no P2P'}, ${states.preCopy ? 'PRE_COPY' : 'no PRE_COPY'}`,
      course,
      way,
      'runs at': runsAt,
      'device there': lost,
      ...bothSaid(ends),
    };
  }

  async #migrate(course: Course): Promise<Ended> {
    const { way } = this.#fault;
    const settings = testSettings((one) => {
      one.setParameters({ 'downtime-limit': 1000, 'avail-switchover-bandwidth': 4_000_000, 'multifd-channels': 2 });
      one.setCapabilities([
        { capability: 'multifd', state: way === 'channels' },
        { capability: 'pause-before-switchover', state: course === 'cancelled when it is stopped' },
      ]);
    });
    let outgoing: OutgoingMigration | undefined;
    const cancel = () => {
      if (outgoing?.status === 'active' || outgoing?.status === 'pre-switchover') outgoing.cancel();
    };
    const started = await moveOver({
      source: this.#source.machine,
      destination: this.#destination.machine,
      settings,
      outgoing: {
        status: (status) => {
          if (status === 'active' && course === 'cancelled while the guest runs') setImmediate(cancel);
          if (status === 'pre-switchover') setImmediate(cancel);
        },
      },
    });
    outgoing = started.outgoing;
    try {
      return await inTime(started.ended, DEADLINE_MS);
    } finally {
      started.listener.close();
    }
  }

  /** The guest runs at one end, and both ends say so. */
  async #whereItRuns({ source, destination }: Ended): Promise<'source' | 'destination'> {
    const { machine: from } = this.#source;
    const { machine: to } = this.#destination;
    const said = `source ${from.runState}: ${source.status === 'completed' ? 'completed' : explain(source.error)}; destination ${to.runState}: ${explain(destination.error)}`;
    if (destination.status === 'completed') {
      assert.equal(to.runState, 'running', said);
      assert.equal(from.runState, 'postmigrate', said);
      return 'destination';
    }
    assert.notEqual(source.status, 'completed', said);
    assert.equal(to.runState, 'inmigrate', said);
    assert.equal(from.runState, 'running', said);
    return 'source';
  }

  /** Returns what has become of the device that fails, where the guest runs now. */
  async #expectWhole(
    runs: MachineWithVfs,
    stands: MachineWithVfs,
    before: readonly number[],
    mayHaveLost: boolean,
  ): Promise<string> {
    const present = await livingOf(runs);
    await expectOnly(present, await livingOf(stands), DEADLINE_MS);
    const reset = await resetsOf(runs);
    await verifyWhole(present, reset);
    if (present.vfs.length === 2 && reset.length === 0) {
      for (const [who, count] of (await progressOf(present)).entries())
        assert(count >= before[who]!, 'the guest or a device has begun anew');
      return 'as it was';
    }
    const { kind } = this.#fault;
    assert(mayHaveLost, 'a device was lost by a fault of the other side');
    assert(present.vfs.some(({ name }) => name === 'vf1') && !reset.includes('vf1'), 'another device was lost');
    if (present.vfs.length === 1) assert(kind === 'hang' || kind === 'die', `lost by ${kind}`);
    else assert.equal(kind, 'break', 'reset');
    return present.vfs.length === 1 ? 'given up' : 'reset';
  }

  async #struck(): Promise<boolean> {
    const { side, kind } = this.#fault;
    const [vf] = (side === 'source' ? this.#source : this.#destination).vfs;
    const asked = await vf!.evidence().catch(() => undefined);
    if (asked === undefined) assert(kind === 'hang' || kind === 'die', 'the device is gone');
    return asked === undefined || asked.faults > 0;
  }

  /** The side that failed names the device. */
  #expectBlamed(...errors: readonly (Error | undefined)[]): void {
    const said = errors.map((error) => (error === undefined ? '' : explain(error))).join('; ');
    assert.match(said, /\bvf0\b/, 'no error names the device');
  }

  /** The fault is over: all goes well now, unless a device is gone; then the next try fails and says so, and the guest runs on. */
  async #again(): Promise<void> {
    const whole = (await livingOf(this.#source)).vfs.length + (await livingOf(this.#destination)).vfs.length === 4;
    const ends = await this.#migrate('to its end');
    const runsAt = await this.#whereItRuns(ends);
    if (ends.source.status !== 'completed') {
      assert(!whole, `the next migration fails too: ${explain(ends.source.error)}; ${explain(ends.destination.error)}`);
      this.#expectBlamed(ends.source.error, ends.destination.error);
    }
    const [runs, stands] = runsAt === 'source' ? [this.#source, this.#destination] : [this.#destination, this.#source];
    const present = await livingOf(runs);
    await expectOnly(present, await livingOf(stands), DEADLINE_MS);
    await verifyWhole(present, await resetsOf(this.#source));
  }
}

/** The machine as far as its devices are still there. */
function isOfStart({ side, point }: FaultCase): boolean {
  return side === 'source' && (point === 'arc RUNNING>RUNNING_P2P' || point === 'arc RUNNING_P2P>RUNNING');
}

async function livingOf(one: MachineWithVfs): Promise<MachineWithVfs> {
  const states = await (one.machine as VfioMachine).reports();
  const vfs = one.vfs.filter((_, i) => states[i]!.state !== undefined);
  return { ...one, vfs, evidence: () => Promise.all(vfs.map((vf) => vf.evidence())) };
}
