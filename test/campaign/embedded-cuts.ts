/**
 * The link between two embedded machines is cut anywhere, in either direction, in any way, while the guest dirties its memory. Whatever
 * happens: it runs on at most one side; before the commit point the source has it; the error says where; nothing is left behind.
 */
import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';
import { explain, FerryError } from '../../src/base/index.ts';
import { createWorkload, type WorkloadMachine } from '../../src/machine/index.ts';
import {
  IncomingMigration,
  type IncomingResult,
  OutgoingMigration,
  type OutgoingResult,
} from '../../src/migration/index.ts';
import type { Settings } from '../../src/settings/index.ts';
import { connect, listen } from '../../src/transport/index.ts';
import { testSettings } from '../support/move.ts';
import type { Campaign, Rig, Row } from './campaign.ts';
import { type Census, census, expectCensus } from './census.ts';
import { type Cut, CutLink, drawCut, type Measured, partOf } from './cut-link.ts';
import { inTime } from './deadline.ts';
import { codesOf, expectWhere } from './errors.ts';
import type { Random } from './random.ts';

const MIB = 1024 * 1024;
const RAM = 4 * MIB;
/** A migration takes a fifth of a second; on a busy machine it may take this long, cut or not, ms. */
const DEADLINE_MS = 30_000;
/** Every so many cuts, a migration that is not cut, and all its pages verified. */
const WHOLE_EVERY = 10;
/** Two PONGs on the return path: the first PING is answered at the start, the last when all devices are loaded. */
const ANSWERS_BYTES = 16;

interface EmbeddedCut {
  readonly cut: Cut;
  readonly maxBandwidth: number;
  readonly xbzrle: boolean;
  readonly pauses: boolean;
}

interface Ends {
  readonly source: OutgoingResult;
  readonly destination: IncomingResult;
  /** The destination's answer to the PING behind the last device was let through: from then on the source may pass the commit point. */
  readonly answered: boolean;
  /** The EOF byte came out of the source: it may not take its guest back by itself any more. */
  readonly pastCommit: boolean;
  readonly cutAt: number | undefined;
  readonly measured: Partial<Measured>;
}

export const embeddedCuts: Campaign<EmbeddedCut> = {
  name: 'cuts between embedded machines',
  groups: ['place', 'how', 'runs at', 'source says'],
  open: (seed) => EmbeddedRig.open(seed),
};

class EmbeddedRig implements Rig<EmbeddedCut> {
  #source: WorkloadMachine;
  #destination: WorkloadMachine;
  #measured: Measured | undefined;
  #census: Census | undefined;
  #violation: string | undefined;
  #cases = 0;

  private constructor(source: WorkloadMachine, destination: WorkloadMachine) {
    this.#source = source;
    this.#destination = destination;
  }

  static async open(seed: number): Promise<EmbeddedRig> {
    const options = { ram: RAM, vcpus: 2, dirtyRate: 4e6, seed };
    const source = await createWorkload(options);
    const destination = await createWorkload({ ...options, incoming: true });
    const rig = new EmbeddedRig(source, destination);
    try {
      await source.resume();
      await rig.#moveWhole();
      await rig.#moveWhole();
      rig.#census = census();
      return rig;
    } catch (error) {
      await rig.dispose();
      throw error;
    }
  }

  parameters(random: Random): EmbeddedCut {
    return {
      cut: drawCut(random, this.#measured!),
      maxBandwidth: random.pick([0, 20e6, 60e6]),
      xbzrle: random.chance(0.25),
      pauses: random.chance(0.25),
    };
  }

  async run(parameters: EmbeddedCut): Promise<Row | undefined> {
    const ends = await this.#move(parameters);
    const runsAt = await this.#judge(ends);
    await expectCensus(this.#census!);
    if (++this.#cases % WHOLE_EVERY === 0) await this.#moveWhole();
    if (ends.cutAt === undefined) return undefined;
    const { cut } = parameters;
    return {
      place: partOf(cut, ends.cutAt, ends.measured),
      how: cut.how,
      at: `byte ${ends.cutAt}`,
      'runs at': runsAt,
      'source says': ends.source.status === 'completed' ? 'completed' : codesOf(ends.source.error),
      'destination says': ends.destination.error === undefined ? 'completed' : codesOf(ends.destination.error),
    };
  }

  async dispose(): Promise<void> {
    await Promise.all([this.#source.dispose(), this.#destination.dispose()]);
  }

  async #move({ cut, maxBandwidth, xbzrle, pauses }: Partial<EmbeddedCut>): Promise<Ends> {
    const settings = testSettings((s) => {
      s.setParameters({ 'max-bandwidth': maxBandwidth ?? 0, 'downtime-limit': 5, 'xbzrle-cache-size': 16 * MIB });
      s.setCapabilities([
        { capability: 'xbzrle', state: xbzrle ?? false },
        { capability: 'pause-before-switchover', state: pauses ?? false },
      ]);
    });
    const listener = await listen({ kind: 'tcp', host: '127.0.0.1', port: 0 });
    const link = await CutLink.open(listener.address, cut);
    const outgoing = this.#outgoing(link, settings);
    const incoming = this.#incoming(settings, async (signal) => {
      try {
        return await listener.accept(signal);
      } finally {
        listener.close();
      }
    });
    try {
      const [source, destination] = await inTime(Promise.all([outgoing.run(), incoming.run()]), DEADLINE_MS);
      const { landmarks } = link.tap;
      const measured = { ...landmarks, said: link.said };
      const answered = link.said >= ANSWERS_BYTES;
      return { source, destination, answered, pastCommit: landmarks.eof !== undefined, cutAt: link.cutAt, measured };
    } finally {
      listener.close();
      await link.close();
    }
  }

  #outgoing(link: CutLink, settings: Settings): OutgoingMigration {
    const migration: OutgoingMigration = new OutgoingMigration({
      machine: this.#source,
      settings,
      connect: (signal) => connect(link.address, { signal }),
      returnPath: () => true,
      observer: {
        status: (status) => {
          if (status === 'pre-switchover') setImmediate(() => migration.status === status && migration.continue());
        },
        resumed: () => this.#expectAlone('resumed', this.#destination),
      },
    });
    return migration;
  }

  #incoming(settings: Settings, accept: (signal: AbortSignal) => ReturnType<typeof connect>): IncomingMigration {
    return new IncomingMigration({
      machine: this.#destination,
      settings,
      accept,
      takesAnyMachine: false,
      observer: {
        started: () => this.#expectAlone('started', this.#source),
      },
    });
  }

  /** Noted and not thrown: an observer's error might be taken for one of the migration. */
  #expectAlone(event: string, other: WorkloadMachine): void {
    if (other.runState === 'running') this.#violation = `the guest was ${event} at one end while it ran at the other`;
  }

  /** Throws what is wrong; else says who has the guest, and makes both ends ready for the next case. */
  async #judge({ source, destination, answered, pastCommit }: Ends): Promise<string> {
    const [from, to] = [this.#source, this.#destination];
    assert.equal(this.#violation, undefined);
    if (destination.status === 'completed') {
      assert.equal(to.runState, 'running', 'the destination has completed');
      assert.equal(from.runState, 'postmigrate', 'the destination runs');
      if (source.status !== 'completed') this.#expectUnconfirmed(source.error);
      await expectOnly(to, from);
      await this.#swap();
      return 'destination';
    }
    assert.equal(to.runState, 'inmigrate', 'the destination has failed');
    assert.equal(to.dirtyLog, undefined, 'the destination has failed, but keeps memory');
    assert(destination.error !== undefined);
    expectWhere(destination.error);
    assert(source.status === 'failed', `the destination has failed, the source is ${source.status}`);
    if (from.runState === 'running') {
      expectWhere(source.error);
      if (pastCommit) assert.match(codesOf(source.error), /MIGRATION_PEER_FAILED/, 'taken back after the commit point');
      await expectOnly(from, to);
      return 'source';
    }
    assert(answered, `before the commit point the source must run again; it is ${from.runState}`);
    assert.equal(from.runState, 'postmigrate');
    this.#expectUnconfirmed(source.error);
    // As the message says: the destination has ended, so here it may run.
    await from.resume();
    await expectOnly(from, to);
    return 'nobody until cont';
  }

  #expectUnconfirmed(error: Error): void {
    assert(error instanceof FerryError);
    assert.equal(error.code, 'MIGRATION_UNCONFIRMED');
    assert.match(error.message, /may run there.*stays stopped here.*'cont'/);
    expectWhere(error);
  }

  async #moveWhole(): Promise<void> {
    const ends = await this.#move({});
    const { source, destination } = ends;
    if (source.status !== 'completed') {
      throw new Error(`a whole migration failed: ${explain(source.error)}; there: ${explain(destination.error)}`);
    }
    const { end, eof, total, said } = ends.measured;
    const ramEnd = ends.measured['ram-end'];
    assert(end !== undefined && ramEnd !== undefined && eof !== undefined && total !== undefined && said !== undefined);
    assert(end < ramEnd && ramEnd < eof && eof < total, 'landmarks in order');
    this.#measured = { end, 'ram-end': ramEnd, eof, total, said };
    const machine = this.#destination;
    await machine.stop('paused');
    const { pagesBad, registersBad, bad, pagesChecked } = await machine.verify();
    assert(pagesChecked * 4096 >= RAM);
    assert.deepEqual({ pagesBad, registersBad, bad }, { pagesBad: 0, registersBad: [], bad: [] });
    await machine.resume();
    await this.#swap();
  }

  async #swap(): Promise<void> {
    [this.#source, this.#destination] = [this.#destination, this.#source];
    await this.#destination.awaitIncoming();
  }
}

/** The guest of one machine works, that of the other does not. */
async function expectOnly(runs: WorkloadMachine, stands: WorkloadMachine): Promise<void> {
  assert.equal(runs.runState, 'running');
  assert.notEqual(stands.runState, 'running');
  const before = stands.statistics.operations;
  const from = runs.statistics.operations;
  const deadlineMs = performance.now() + DEADLINE_MS;
  while (runs.statistics.operations < from + 20) {
    assert(performance.now() < deadlineMs, 'the guest does not work');
    await pause(2);
  }
  assert.equal(stands.statistics.operations, before, 'the other guest works too');
}
