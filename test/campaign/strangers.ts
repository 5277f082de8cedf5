/**
 * The engine against peers that are no good: sources that send a part of a stream and then end, vanish, go on with something else or say
 * nothing more; destinations that stop reading, or never answer, until the migration is cancelled. It ends promptly, whatever state it is
 * in; the guest of a source runs on, and a destination keeps nothing.
 */
import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { createServer, connect as netConnect, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { asError } from '../../src/base/index.ts';
import {
  CheckpointWriter,
  createWorkload,
  type DestinationMachine,
  type WorkloadMachine,
} from '../../src/machine/index.ts';
import { IncomingMigration, OutgoingMigration } from '../../src/migration/index.ts';
import { type Address, connect, type Listener, listen } from '../../src/transport/index.ts';
import { ReturnPathDecoder, StreamInput } from '../../src/wire/index.ts';
import { cutProxy } from '../support/cut-proxy.ts';
import { testSettings } from '../support/move.ts';
import type { Campaign, Rig, Row } from './campaign.ts';
import { type Census, census, expectCensus } from './census.ts';
import { inTime } from './deadline.ts';
import { codesOf, expectWhere } from './errors.ts';
import { FullBacklog } from './full-backlog.ts';
import { Random } from './random.ts';
import { type Landmark, StreamTap } from './stream-tap.ts';

const MIB = 1024 * 1024;
/** More than all socket buffers of a link hold. */
const RAM = 48 * MIB;
const MACHINE = { ram: RAM, vcpus: 1, dirtyRate: 4e6 };
/** A migration that is cancelled has no excuse, but the machine may be busy, ms. */
const PROMPT_MS = 3_000;
const DEADLINE_MS = 20_000;
const SHUT_NEVER_STARTED = 0x0fe2_2f00;
const SETUP_BYTES = 1_500;

/** A source that sends `bytes` of a good stream, and then ... */
interface BadSource {
  readonly peer: 'source';
  readonly into: 'machine' | 'checkpoint';
  readonly bytes: number;
  readonly then: 'end' | 'reset' | 'junk' | 'other part' | 'silence';
  /** Of the junk, or where the other part begins; for silence the time until the destination is cancelled, ms. */
  readonly value: number;
}

/** A destination that is silent in a state of the source, which is then cancelled. */
interface BadDestination {
  readonly peer: 'destination';
  readonly state:
    | 'connecting'
    | 'setup answered'
    | 'full buffers'
    | 'shaped'
    | 'pre-switchover'
    | 'switchover RAM'
    | 'no answer';
  /** Between reaching the state and cancelling, ms. */
  readonly afterMs: number;
}

type Stranger = BadSource | BadDestination;

export const strangers: Campaign<Stranger> = {
  name: 'hostile and silent peers',
  groups: ['peer', 'does', 'engine says'],
  open: (seed) => StrangerRig.open(seed),
};

class StrangerRig implements Rig<Stranger> {
  readonly #folder: string;
  readonly #source: WorkloadMachine;
  readonly #destination: WorkloadMachine;
  #stream = Buffer.alloc(0);
  #eof = 0;
  #census: Census | undefined;

  private constructor(folder: string, source: WorkloadMachine, destination: WorkloadMachine) {
    this.#folder = folder;
    this.#source = source;
    this.#destination = destination;
  }

  static async open(seed: number): Promise<StrangerRig> {
    const rig = new StrangerRig(
      await mkdtemp(join(tmpdir(), 'vmferry-strangers-')),
      await createWorkload({ ...MACHINE, seed }),
      await createWorkload({ ...MACHINE, seed, incoming: true }),
    );
    try {
      await rig.#source.resume();
      await rig.#record();
      await rig.#source.resume();
      await rig.#destination.stop('paused');
      await rig.#destination.awaitIncoming();
      rig.#census = await census();
      return rig;
    } catch (error) {
      await rig.dispose();
      throw error;
    }
  }

  parameters(random: Random): Stranger {
    if (random.chance(0.4)) {
      const state = random.pick(DESTINATION_STATES);
      return { peer: 'destination', state, afterMs: random.int(0, 100) };
    }
    const then = random.pick(['end', 'reset', 'junk', 'other part', 'silence'] as const);
    const most = random.weighted([
      [3, SETUP_BYTES],
      [4, this.#eof],
    ] as const);
    const value = then === 'silence' ? random.int(0, 100) : random.int(0, this.#eof);
    return {
      peer: 'source',
      into: random.pick(['machine', 'checkpoint'] as const),
      bytes: random.int(0, most),
      then,
      value,
    };
  }

  async run(stranger: Stranger): Promise<Row> {
    const row = stranger.peer === 'source' ? await this.#badSource(stranger) : await this.#badDestination(stranger);
    await expectCensus(this.#census!);
    return row;
  }

  async dispose(): Promise<void> {
    await Promise.all([this.#source.dispose(), this.#destination.dispose()]);
    await rm(this.#folder, { recursive: true, force: true });
  }

  /** The bytes of a migration that went well. */
  async #record(): Promise<void> {
    const listener = await listen({ kind: 'tcp', host: '127.0.0.1', port: 0 });
    const link = await cutProxy(listener.address as Address & { kind: 'tcp' });
    const tap = new StreamTap();
    const parts: Buffer[] = [];
    link.onBytes = (direction, bytes) => {
      if (direction !== 'toTarget') return;
      tap.feed(bytes);
      parts.push(Buffer.from(bytes));
    };
    const outgoing = this.#outgoing(link.address, {});
    const incoming = this.#incoming(this.#destination, listener);
    const [sent] = await Promise.all([outgoing.run(), incoming.run()]);
    listener.close();
    await link.close();
    if (sent.status !== 'completed') throw sent.error;
    this.#stream = Buffer.concat(parts);
    this.#eof = tap.landmarks.eof!;
  }

  async #badSource(stranger: BadSource): Promise<Row> {
    const { into, bytes, then, value } = stranger;
    const machine = into === 'machine' ? this.#destination : new CheckpointWriter(join(this.#folder, 'machine.ckpt'));
    const listener = await listen({ kind: 'tcp', host: '127.0.0.1', port: 0 });
    const migration = this.#incoming(machine, listener);
    const running = migration.run();
    const socket = await dial(listener.address);
    const said = saidTo(socket);
    socket.write(this.#stream.subarray(0, bytes));
    const cancelled = then === 'silence' ? pause(value).then(() => migration.cancel()) : undefined;
    switch (then) {
      case 'end':
        socket.end();
        break;
      case 'reset':
        socket.resetAndDestroy();
        break;
      case 'junk':
        socket.end(junk(value));
        break;
      case 'other part':
        socket.end(this.#stream.subarray(value, value + 200_000));
        break;
    }
    await cancelled;
    const result = await inTime(running, then === 'silence' ? PROMPT_MS : DEADLINE_MS);
    listener.close();
    assert.equal(result.status, 'failed');
    assert(result.error !== undefined);
    if (then !== 'silence') expectWhere(result.error);
    await this.#expectNothing(machine);
    // It has seen that a source listens, so it tells it that the guest was not started - unless the link is gone, or the failure was its own.
    const words = await inTime(said, PROMPT_MS, 'the end of the return path');
    if (then === 'end' && bytes > SETUP_BYTES) assert.equal(words.at(-1), SHUT_NEVER_STARTED);
    assert(!words.includes(0), 'SHUT 0 for a guest that has not come');
    socket.destroy();
    return { peer: `source, into a ${into}`, does: then, 'engine says': codesOf(result.error) };
  }

  async #expectNothing(machine: DestinationMachine): Promise<void> {
    assert.equal(machine.runState, 'inmigrate');
    assert.equal(this.#destination.dirtyLog, undefined, 'memory was kept');
    assert.deepEqual(await readdir(this.#folder), [], 'a file was left');
  }

  async #badDestination({ state, afterMs }: BadDestination): Promise<Row> {
    const peer = await SilentDestination.open(state);
    const reached = inTime(peer.silent, DEADLINE_MS, `the state ${state}`);
    let paused: () => void = () => {};
    const atPause = new Promise<void>((resolve) => {
      paused = resolve;
    });
    const migration = this.#outgoing(
      peer.address,
      {
        ...(state === 'shaped' ? { 'max-bandwidth': 20_000 } : {}),
        // All of RAM may be sent with the guest stopped.
        ...(state === 'switchover RAM' ? { 'max-bandwidth': 100e6, 'downtime-limit': 2_000 } : {}),
      },
      state === 'pre-switchover' ? paused : undefined,
    );
    const running = migration.run();
    try {
      await (state === 'pre-switchover' ? inTime(atPause, DEADLINE_MS, 'pre-switchover') : reached);
      await pause(afterMs);
      assert.equal(migration.status, STATUS_OF[state]);
      const fromMs = performance.now();
      migration.cancel();
      const result = await inTime(running, PROMPT_MS, 'the end of a cancelled migration');
      const tookMs = performance.now() - fromMs;
      assert.equal(result.status, 'cancelled');
      await this.#expectRuns();
      return { peer: 'destination', does: state, 'engine says': 'cancelled', after: `${tookMs.toFixed(1)} ms` };
    } finally {
      await peer.close();
      await running;
    }
  }

  async #expectRuns(): Promise<void> {
    const machine = this.#source;
    assert.equal(machine.runState, 'running');
    const before = machine.statistics.operations;
    const deadlineMs = performance.now() + DEADLINE_MS;
    while (machine.statistics.operations < before + 5) {
      assert(performance.now() < deadlineMs, 'the guest does not work');
      await pause(1);
    }
  }

  #outgoing(address: Address, parameters: Record<string, number>, atPause?: () => void): OutgoingMigration {
    return new OutgoingMigration({
      machine: this.#source,
      settings: testSettings((s) => {
        s.setParameters(parameters);
        if (atPause !== undefined) s.setCapabilities([{ capability: 'pause-before-switchover', state: true }]);
      }),
      connect: (signal) => connect(address, { signal }),
      returnPath: () => true,
      observer: { status: (status) => status === 'pre-switchover' && atPause?.() },
    });
  }

  #incoming(machine: DestinationMachine, listener: Listener): IncomingMigration {
    return new IncomingMigration({
      machine,
      settings: testSettings(),
      listener,
      takesAnyMachine: machine instanceof CheckpointWriter,
    });
  }
}

const DESTINATION_STATES = [
  'connecting',
  'setup answered',
  'full buffers',
  'shaped',
  'pre-switchover',
  'switchover RAM',
  'no answer',
] as const;

const STATUS_OF: Readonly<Record<BadDestination['state'], string>> = {
  connecting: 'setup',
  'setup answered': 'active',
  'full buffers': 'active',
  shaped: 'active',
  'pre-switchover': 'pre-switchover',
  'switchover RAM': 'device',
  'no answer': 'device',
};

/** Accepts a source, reads up to a place and then does nothing at all any more. */
class SilentDestination {
  readonly address: Address;
  /** Resolves when nothing more will be read, and for a moment nothing could be. */
  readonly silent: Promise<void>;
  readonly #close: () => Promise<void>;

  private constructor(address: Address, silent: Promise<void>, close: () => Promise<void>) {
    this.address = address;
    this.silent = silent;
    this.#close = close;
  }

  static async open(state: BadDestination['state']): Promise<SilentDestination> {
    if (state === 'connecting') {
      const backlog = await FullBacklog.open();
      return new SilentDestination(backlog.address, Promise.resolve(), () => backlog.close());
    }
    const sockets = new Set<Socket>();
    let silent: () => void = () => {};
    const reached = new Promise<void>((resolve) => {
      silent = resolve;
    });
    const server = createServer((socket) => {
      sockets.add(socket);
      socket.on('error', () => {});
      readUntil(socket, state, silent);
    });
    const port = await listenOn(server);
    return new SilentDestination({ kind: 'tcp', host: '127.0.0.1', port }, reached, async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    });
  }

  close(): Promise<void> {
    return this.#close();
  }
}

/** Time for a source to fill the buffers of a link, or to begin to wait, ms. */
const FILL_MS = 200;

function readUntil(socket: Socket, state: BadDestination['state'], silent: () => void): void {
  const wait = () => setTimeout(silent, FILL_MS);
  const stop = () => {
    socket.pause();
    wait();
  };
  switch (state) {
    case 'full buffers':
      return void stop();
    case 'setup answered':
      // PONG 1; and then nothing is read.
      socket.write(Buffer.from('0002000400000001', 'hex'));
      return void stop();
    case 'switchover RAM': {
      const tap = new StreamTap((landmark: Landmark) => landmark === 'end' && stop());
      socket.on('data', (bytes) => tap.feed(bytes));
      return;
    }
    case 'no answer': {
      const tap = new StreamTap((landmark: Landmark) => landmark === 'ram-end' && wait());
      socket.on('data', (bytes) => tap.feed(bytes));
      return;
    }
    default:
      socket.resume();
      wait();
  }
}

function listenOn(server: Server): Promise<number> {
  return new Promise((resolve) => {
    server.listen({ port: 0, host: '127.0.0.1' }, () => {
      const address = server.address();
      assert(address !== null && typeof address !== 'string');
      resolve(address.port);
    });
  });
}

async function dial(address: Address): Promise<Socket> {
  assert(address.kind === 'tcp');
  const socket = netConnect({ host: address.host, port: address.port, allowHalfOpen: true });
  await new Promise((resolve) => socket.once('connect', resolve));
  socket.on('error', () => {});
  return socket;
}

/** Values of the messages on the return path (PONG, SHUT), once it is over. */
function saidTo(socket: Socket): Promise<number[]> {
  const parts: Buffer[] = [];
  socket.on('data', (bytes: Buffer) => parts.push(bytes));
  return new Promise((resolve, reject) => {
    socket.once('close', finish);
    socket.once('end', finish);
    function finish() {
      try {
        resolve(valuesOf(Buffer.concat(parts)));
      } catch (error) {
        reject(asError(error));
      }
    }
  });
}

function valuesOf(said: Buffer): number[] {
  const input = new StreamInput('said');
  if (said.length > 0) input.add({ bytes: said, start: 0, end: said.length });
  const decoder = new ReturnPathDecoder(input.reader);
  const values: number[] = [];
  for (let message = decoder.next(); message !== undefined; message = decoder.next()) {
    values.push(message.type === 'PONG' || message.type === 'SHUT' ? message.value : Number.NaN);
  }
  return values;
}

function junk(seed: number): Buffer {
  const random = new Random(seed);
  const bytes = Buffer.alloc(random.int(1, 64 * 1024));
  const few = random.chance(0.5);
  // Small numbers are what sections, flags and lengths are made of.
  for (let at = 0; at < bytes.length; at++) bytes[at] = random.int(0, few ? 8 : 255);
  return bytes;
}
