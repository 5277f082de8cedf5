/**
 * Two embedded machines and migrations between them that are cut, cancelled, or go well. Whatever happens: the guest runs on at most one
 * side; before the commit point the source has it; the error says where. With devices: they run where the guest runs, and what they
 * are is verified bit for bit after every migration.
 */
import assert from 'node:assert/strict';
import { explain, FerryError } from '../../src/base/index.ts';
import type { WorkloadOptions } from '../../src/machine/index.ts';
import {
  dialer,
  IncomingMigration,
  type IncomingResult,
  OutgoingMigration,
  type OutgoingResult,
} from '../../src/migration/index.ts';
import type { Settings } from '../../src/settings/index.ts';
import { connect, type Listener, listen } from '../../src/transport/index.ts';
import { testSettings } from '../support/move.ts';
import type { VfSide } from '../support/vf-machines.ts';
import { type ChannelCut, type Cut, CutLink, type Measured, measuredBy } from './cut-link.ts';
import { inTime } from './deadline.ts';
import { codesOf, expectWhere } from './errors.ts';
import {
  awaitIncoming,
  expectOnly,
  type PairMachine,
  pairMachine,
  progressOf,
  resetsOf,
  verifyWhole,
} from './pair-machine.ts';

const MIB = 1024 * 1024;
/** A migration takes a fifth of a second; on a busy machine it may take this long, cut or not, ms. */
const DEADLINE_MS = 30_000;
const PONG_BYTES = 8;

export interface MoveParameters {
  readonly cut?: Cut | ChannelCut;
  /** After the start, if it is not over by then. */
  readonly cancelAfterMs?: number;
  readonly maxBandwidth?: number;
  readonly xbzrle?: boolean;
  /** pause-before-switchover, and on at once. */
  readonly pauses?: boolean;
  readonly switchoverAck?: boolean;
  /** Number of channels, and their compression. */
  readonly multifd?: { readonly channels: number; readonly compression: 'none' | 'zlib' | 'zstd' };
}

type ParameterValues = Parameters<Settings['setParameters']>[0];

export interface Ends {
  readonly source: OutgoingResult;
  readonly destination: IncomingResult;
  /** The destination's answer to the PING behind the last device was let through: from then on the source may pass the commit point. */
  readonly answered: boolean;
  /** The EOF byte came out of the source: it may not take its guest back by itself any more. */
  readonly pastCommit: boolean;
  readonly cutAt: number | undefined;
  readonly landmarks: CutLink['tap']['landmarks'];
  readonly runsAt: 'source' | 'destination' | 'nobody until cont';
}

export class EmbeddedPair {
  #source: PairMachine;
  #destination: PairMachine;
  #measured: Measured | undefined;
  #violation: string | undefined;

  readonly #values: ParameterValues;

  private constructor(source: PairMachine, destination: PairMachine, values: ParameterValues) {
    this.#source = source;
    this.#destination = destination;
    this.#values = values;
  }

  /** The guest runs, and has moved once. `values`: further parameters of every migration. */
  static async open(
    options: WorkloadOptions,
    devices?: Omit<VfSide, 'workload'>,
    values: ParameterValues = {},
  ): Promise<EmbeddedPair> {
    const source = await pairMachine(options, devices, false);
    const destination = await pairMachine(options, devices, true);
    const pair = new EmbeddedPair(source, destination, values);
    try {
      await source.machine.resume();
      await pair.moveWhole();
      return pair;
    } catch (error) {
      await pair.dispose();
      throw error;
    }
  }

  /** Of the last whole move. */
  get measured(): Measured {
    assert(this.#measured !== undefined);
    return this.#measured;
  }

  /** One migration, judged: throws what is wrong. Afterwards the guest runs in what is the source then. */
  async move(parameters: MoveParameters): Promise<Ends> {
    const before = await progressOf(this.#source);
    const ends = await this.#migrate(parameters);
    const runsAt = await this.#judge(ends);
    if (this.#source.vfs.length > 0) {
      await verifyWhole(this.#source);
      // A device that was reset on the way would be whole as well, but have begun anew.
      for (const [who, count] of (await progressOf(this.#source)).entries())
        assert(count >= before[who]!, 'the guest or a device has begun anew');
      assert.deepEqual(await resetsOf(this.#source), [], 'devices had to be reset');
    }
    return { ...ends, runsAt };
  }

  /** A migration that must go well; then every page and register is verified. Returns what went over multifd channels, bytes. */
  async moveWhole(parameters: MoveParameters = {}): Promise<number> {
    const { source, destination, measured, channelBytes } = await this.#migrate(parameters);
    if (source.status !== 'completed') {
      throw new Error(`a whole migration failed: ${explain(source.error)}; there: ${explain(destination.error)}`);
    }
    this.#measured = measured();
    await verifyWhole(this.#destination);
    await this.#swap();
    return channelBytes;
  }

  async dispose(): Promise<void> {
    await Promise.all([this.#source.close(), this.#destination.close()]);
  }

  async #migrate(parameters: MoveParameters) {
    const {
      cut,
      cancelAfterMs,
      maxBandwidth = 0,
      xbzrle = false,
      pauses = false,
      multifd,
      switchoverAck = false,
    } = parameters;
    const settings = testSettings((s) => {
      s.setParameters({ 'max-bandwidth': maxBandwidth, 'downtime-limit': 5, 'xbzrle-cache-size': 16 * MIB });
      s.setParameters(this.#values);
      if (multifd !== undefined) {
        s.setParameters({ 'multifd-channels': multifd.channels, 'multifd-compression': multifd.compression });
        s.setCapabilities([{ capability: 'multifd', state: true }]);
      }
      s.setCapabilities([
        { capability: 'xbzrle', state: xbzrle },
        { capability: 'pause-before-switchover', state: pauses },
        { capability: 'return-path', state: true },
        { capability: 'switchover-ack', state: switchoverAck },
      ]);
    });
    const listener = await listen({ kind: 'tcp', host: '127.0.0.1', port: 0 });
    const link = await CutLink.open(listener.address, cut);
    const outgoing = this.#outgoing(link, settings);
    const running = Promise.all([outgoing.run(), this.#incoming(settings, listener).run()]);
    const timer =
      cancelAfterMs === undefined ? undefined : setTimeout(() => orTooLate(() => outgoing.cancel()), cancelAfterMs);
    try {
      const [source, destination] = await inTime(running, DEADLINE_MS);
      const { landmarks } = link.tap;
      return {
        source,
        destination,
        answered: link.said >= this.#answersBytes,
        pastCommit: landmarks.eof !== undefined,
        cutAt: link.cutAt,
        landmarks,
        channelBytes: outgoing.info().ram?.['multifd-bytes'] ?? 0,
        measured: () => measuredBy(link),
      };
    } finally {
      clearTimeout(timer);
      listener.close();
      await link.close();
    }
  }

  /** On the return path: the first PING is answered at the start, twice by a machine with devices, the last when all of them are loaded. */
  get #answersBytes(): number {
    return (this.#source.vfs.length > 0 ? 3 : 2) * PONG_BYTES;
  }

  #outgoing(link: CutLink, settings: Settings): OutgoingMigration {
    const migration: OutgoingMigration = new OutgoingMigration({
      machine: this.#source.machine,
      settings,
      connect: (signal) => connect(link.address, { signal }),
      dial: dialer(link.address),
      returnPath: () => true,
      observer: {
        status: (status) => {
          if (status === 'pre-switchover') setImmediate(() => orTooLate(() => migration.continue()));
        },
        resumed: () => this.#expectAlone('resumed', this.#destination),
      },
    });
    return migration;
  }

  #incoming(settings: Settings, listener: Listener): IncomingMigration {
    return new IncomingMigration({
      machine: this.#destination.machine,
      settings,
      listener,
      takesAnyMachine: false,
      observer: { started: () => this.#expectAlone('started', this.#source) },
    });
  }

  /** Noted and not thrown: an observer's error might be taken for one of the migration. */
  #expectAlone(event: string, { machine }: PairMachine): void {
    if (machine.runState === 'running') this.#violation = `the guest was ${event} at one end while it ran at the other`;
  }

  async #judge({ source, destination, answered, pastCommit }: Omit<Ends, 'runsAt'>): Promise<Ends['runsAt']> {
    const { machine: from } = this.#source;
    const { machine: to } = this.#destination;
    assert.equal(this.#violation, undefined);
    if (destination.status === 'completed') {
      assert.equal(to.runState, 'running', 'the destination has completed');
      assert.equal(from.runState, 'postmigrate', 'the destination runs');
      if (source.status !== 'completed') expectUnconfirmed(source.error);
      await expectOnly(this.#destination, this.#source, DEADLINE_MS);
      await this.#swap();
      return 'destination';
    }
    assert.equal(to.runState, 'inmigrate', 'the destination has failed');
    assert.equal(to.dirtyLog, undefined, 'the destination has failed, but keeps memory');
    assert(destination.error !== undefined);
    expectWhere(destination.error);
    assert(source.status !== 'completed', 'the destination has failed, but the source says completed');
    if (from.runState === 'running') {
      if (source.status === 'failed') expectWhere(source.error);
      if (pastCommit) assert.match(codesOf(source.error), /MIGRATION_PEER_FAILED/, 'taken back after the commit point');
      await expectOnly(this.#source, this.#destination, DEADLINE_MS);
      return 'source';
    }
    assert(answered, `before the commit point the source must run again; it is ${from.runState}`);
    assert.equal(from.runState, 'postmigrate');
    expectUnconfirmed(source.error);
    // As the message says: the destination has ended, so here it may run.
    await from.resume();
    await expectOnly(this.#source, this.#destination, DEADLINE_MS);
    return 'nobody until cont';
  }

  async #swap(): Promise<void> {
    [this.#source, this.#destination] = [this.#destination, this.#source];
    await awaitIncoming(this.#destination);
  }
}

/** What one asks of a migration may come when it is over, or has failed already. */
function orTooLate(ask: () => void): void {
  try {
    ask();
  } catch (error) {
    assert(error instanceof FerryError && error.code === 'MIGRATION_STATE');
  }
}

function expectUnconfirmed(error: Error): void {
  assert(error instanceof FerryError);
  assert.equal(error.code, 'MIGRATION_UNCONFIRMED');
  assert.match(error.message, /may run there.*stays stopped here.*'cont'/);
  expectWhere(error);
}
