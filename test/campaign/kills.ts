/**
 * SIGKILL of one end at a random moment of a migration: of a `vmferry run` that sends or receives, of a `vmferry receive`. The other end
 * has the guest or has none, never half of one; FILE is there whole or not at all.
 */
import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { explain } from '../../src/base/index.ts';
import { CheckpointReader, createWorkload, type WorkloadMachine } from '../../src/machine/index.ts';
import { OutgoingMigration } from '../../src/migration/index.ts';
import { type QemuPeer, type QemuProcess, QmpClient } from '../../src/qemu/index.ts';
import { connect, parseAddress } from '../../src/transport/index.ts';
import { memoryPair } from '../support/memory-channel.ts';
import { move, testSettings } from '../support/move.ts';
import { VmferryCommand } from '../support/vmferry-cli.ts';
import type { Campaign, Rig, Row } from './campaign.ts';
import { inTime } from './deadline.ts';
import { expectMoment, expectWorks, finalState, provedPeers, readGuest, startQemu } from './qemu-guest.ts';
import type { Random } from './random.ts';

const MIB = 1024 * 1024;
const RAM = 32 * MIB;
const MACHINE = ['--ram', '32M', '--vcpus', '1', '--dirty-rate', '10M', '--set', 'events=on'];
/** About a third of a second for the migration. */
const MAX_BANDWIDTH = 100e6;
const SOCKET = 'tcp:127.0.0.1:0';
const FILE = 'machine.ckpt';
const DEADLINE_MS = 30_000;
const ENDS = ['completed', 'failed', 'cancelled'] as const;

type Victim = 'destination' | 'source' | 'receive' | 'receive from QEMU';

interface Kill {
  readonly victim: Victim;
  /** `start`: when the migration has been asked for. `device`: when the source has stopped its guest and sends the rest. */
  readonly from: 'start' | 'device';
  readonly afterMs: number;
}

const NOBODY = Number.POSITIVE_INFINITY;
/** From the stop of the guest to the end. */
const SWITCHOVER_MS = 60;

/** Without `peer`: the oldest QEMU here that is proved against, if there is one. */
export function kills(peer?: QemuPeer): Campaign<Kill> {
  return {
    name: 'killed processes',
    groups: ['killed', 'the other end'],
    open: async () => KillRig.open(peer ?? (await provedPeers())[0]),
  };
}

class KillRig implements Rig<Kill> {
  readonly #folder: string;
  readonly #processes = new Set<VmferryCommand>();
  readonly #peer: QemuPeer | undefined;
  #qemu: QemuProcess | undefined;
  #machine: WorkloadMachine | undefined;
  #source: RunProcess | undefined;
  #started = 0;
  /** How long each kind takes when nobody is killed, ms. */
  readonly #wholeMs = new Map<Victim, number>();

  private constructor(folder: string, peer: QemuPeer | undefined) {
    this.#folder = folder;
    this.#peer = peer;
  }

  static async open(peer: QemuPeer | undefined): Promise<KillRig> {
    const rig = new KillRig(await mkdtemp(join(tmpdir(), 'vmferry-kills-')), peer);
    try {
      for (const victim of rig.#victims) {
        const startedMs = performance.now();
        await rig.run({ victim, from: 'start', afterMs: NOBODY });
        // Without the time that the process takes to start.
        rig.#wholeMs.set(victim, Math.min(1_000, Math.ceil(performance.now() - startedMs)));
      }
      return rig;
    } catch (error) {
      await rig.dispose();
      throw error;
    }
  }

  get #victims(): Victim[] {
    const victims: Victim[] = ['destination', 'source', 'receive'];
    return this.#peer === undefined ? victims : [...victims, 'receive from QEMU'];
  }

  parameters(random: Random, index: number): Kill {
    const victim = this.#victims[index % this.#victims.length]!;
    const from = random.pick(['start', 'device'] as const);
    return { victim, from, afterMs: random.int(0, from === 'device' ? SWITCHOVER_MS : this.#wholeMs.get(victim)!) };
  }

  async run(kill: Kill): Promise<Row> {
    const end = await this.#take(kill);
    return { killed: kill.victim, when: `${kill.from} + ${kill.afterMs} ms`, 'the other end': end };
  }

  async dispose(): Promise<void> {
    for (const process of this.#processes) process.kill('SIGKILL');
    await Promise.all([...this.#processes].map(({ ended }) => ended));
    this.#source?.qmp.close();
    await this.#machine?.dispose();
    await this.#qemu?.stop();
    await rm(this.#folder, { recursive: true, force: true });
  }

  #take(kill: Kill): Promise<string> {
    switch (kill.victim) {
      case 'destination':
        return this.#killDestination(kill);
      case 'source':
        return this.#killSource(kill);
      case 'receive':
        return this.#killReceive(kill);
      case 'receive from QEMU':
        return this.#killReceiveFromQemu(kill);
    }
  }

  async #killDestination(kill: Kill): Promise<string> {
    const source = await this.#runningSource();
    const destination = await this.#run('--incoming', SOCKET);
    const device = deviceEvent(source.qmp);
    await source.qmp.execute('migrate', { uri: destination.uri! });
    await strike(kill, destination.process, device);
    const { status } = await ended(source.qmp);
    if (kill.afterMs === NOBODY) await this.#end(destination);
    const state = await source.qmp.execute('query-status');
    let what = 'runs on';
    if (status === 'completed') {
      what = 'had handed over';
      assert.equal(state.status, 'postmigrate');
    } else if (!state.running) {
      const { 'error-desc': why = '' } = await source.qmp.execute('query-migrate');
      assert.equal(state.status, 'postmigrate', why);
      assert.match(why, /may run there.*'cont'/);
      what = 'stands until cont';
    }
    // The destination is dead for certain: here the guest may run.
    if (!state.running) await source.qmp.execute('cont');
    await source.expectWhole();
    return what;
  }

  async #killSource(kill: Kill): Promise<string> {
    const source = await this.#runningSource();
    const destination = await this.#run('--incoming', SOCKET);
    const device = deviceEvent(source.qmp);
    await source.qmp.execute('migrate', { uri: destination.uri! });
    await strike(kill, source.process, device);
    if (kill.afterMs === NOBODY) await ended(source.qmp);
    await this.#end(source);
    this.#source = undefined;
    const arrived = await destination.decided();
    if (!arrived) {
      const { exitStatus, result } = await destination.process.ended;
      assert.equal(exitStatus, 1, destination.process.said);
      assert.equal(result?.status, 'failed');
      destination.qmp.close();
      return 'has ended';
    }
    await destination.expectWhole();
    this.#source = destination;
    return 'runs the whole guest';
  }

  async #killReceive(kill: Kill): Promise<string> {
    const machine = await this.#embeddedSource();
    const { process, uri } = await this.#receive();
    let stopped: () => void = () => {};
    const device = new Promise<void>((resolve) => {
      stopped = resolve;
    });
    const migration = new OutgoingMigration({
      machine,
      settings: testSettings((s) => s.setParameters({ 'max-bandwidth': MAX_BANDWIDTH })),
      connect: (signal) => connect(parseAddress(uri), { signal }),
      returnPath: () => true,
      observer: { status: (status) => status === 'device' && stopped() },
    });
    const running = migration.run();
    await strike(kill, process, device);
    const result = await inTime(running, DEADLINE_MS);
    await inTime(process.ended, DEADLINE_MS);
    const file = await this.#expectFile(result.status === 'completed', (path) => expectWholeCheckpoint(path));
    if (machine.runState !== 'running') {
      assert.equal(machine.runState, 'postmigrate');
      if (result.status !== 'completed') assert.match(explain(result.error), /may run there.*'cont'/);
      await machine.resume();
      return `stands; ${file}`;
    }
    assert.equal(result.status, 'failed');
    const before = machine.statistics.operations;
    while (machine.statistics.operations === before) await pause(1);
    return `runs on; ${file}`;
  }

  async #killReceiveFromQemu(kill: Kill): Promise<string> {
    this.#qemu ??= await startQemu(this.#peer!);
    const { qmp } = this.#qemu;
    await qmp.execute('migrate-set-parameters', { 'max-bandwidth': MAX_BANDWIDTH });
    const { process, uri } = await this.#receive();
    const device = deviceEvent(qmp);
    await qmp.execute('migrate', { uri });
    await strike(kill, process, device);
    const { status } = await ended(qmp);
    await inTime(process.ended, DEADLINE_MS);
    const qemu = this.#qemu;
    const file = await this.#expectFile(status === 'completed', async (path) =>
      expectMoment(qemu, await readGuest(path)),
    );
    const running = (await finalState(qemu)) === 'running';
    assert.equal(running, status !== 'completed', `the migration is ${status}`);
    if (!running) await qmp.execute('cont');
    await expectWorks(qemu);
    return `${running ? 'runs on' : 'stands'}; ${file}`;
  }

  /** The checkpoint, which must be there if the source was told so, is whole; what is left of one that was being written does not look whole. */
  async #expectFile(required: boolean, check: (path: string) => Promise<void>): Promise<string> {
    const names = await readdir(this.#folder);
    const path = join(this.#folder, FILE);
    const written = names.includes(FILE);
    if (written) await check(path);
    assert(written || !required, 'the source has completed, but there is no file');
    for (const name of names.filter((entry) => entry.includes('.tmp'))) {
      // From the moment that it can be opened on, it is complete; only its name and its way to the disk are to come.
      if (await opens(join(this.#folder, name))) await check(join(this.#folder, name));
      await rm(join(this.#folder, name));
    }
    await rm(path, { force: true });
    return written ? 'whole file' : 'no file';
  }

  async #runningSource(): Promise<RunProcess> {
    this.#source ??= await this.#run();
    await this.#source.qmp.execute('migrate-set-parameters', { 'max-bandwidth': MAX_BANDWIDTH });
    return this.#source;
  }

  async #embeddedSource(): Promise<WorkloadMachine> {
    if (this.#machine === undefined) {
      this.#machine = await createWorkload({ ram: RAM, vcpus: 1, dirtyRate: 10e6 });
      await this.#machine.resume();
    }
    return this.#machine;
  }

  async #run(...args: readonly string[]): Promise<RunProcess> {
    const path = join(this.#folder, `${++this.#started}.sock`);
    const process = this.#start(['run', '--qmp', path, ...MACHINE, ...args]);
    const uri = await process.waitForLine(
      (line) => (line['type'] === 'ready' ? { is: line['uri'] } : undefined),
      'ready',
    );
    return new RunProcess(process, await QmpClient.connect(path), uri.is as string | undefined);
  }

  async #receive(): Promise<{ readonly process: VmferryCommand; readonly uri: string }> {
    const process = this.#start(['receive', SOCKET, '--to', join(this.#folder, FILE)]);
    const uri = await process.waitForLine(
      (line) => (line['type'] === 'listening' ? line['uri'] : undefined),
      'listening',
    );
    return { process, uri: String(uri) };
  }

  #start(args: readonly string[]): VmferryCommand {
    const command = new VmferryCommand(args);
    this.#processes.add(command);
    void command.ended.then(() => this.#processes.delete(command));
    return command;
  }

  async #end({ process, qmp }: RunProcess): Promise<void> {
    process.kill('SIGKILL');
    await process.ended;
    qmp.close();
  }
}

/** A `vmferry run` that can be talked to. */
class RunProcess {
  readonly process: VmferryCommand;
  readonly qmp: QmpClient;
  readonly uri: string | undefined;

  constructor(process: VmferryCommand, qmp: QmpClient, uri: string | undefined) {
    this.process = process;
    this.qmp = qmp;
    this.uri = uri;
  }

  /** The guest works, and every page and register is right. */
  async expectWhole(): Promise<void> {
    const operations = async () =>
      ((await this.qmp.executeAny('x-workload-status')) as { readonly operations: number }).operations;
    const before = await operations();
    const deadlineMs = performance.now() + DEADLINE_MS;
    while ((await operations()) === before) assert(performance.now() < deadlineMs, 'the guest does not work');
    const verdict = (await this.qmp.executeAny('x-workload-verify')) as { readonly verified: boolean };
    assert.equal(verdict.verified, true, JSON.stringify(verdict));
  }

  /** Whether the guest has arrived: it runs, or the process is gone. */
  async decided(): Promise<boolean> {
    const deadlineMs = performance.now() + DEADLINE_MS;
    while (this.qmp.open) {
      const status = await this.qmp.execute('query-status').catch(() => undefined);
      if (status?.running === true) return true;
      assert(performance.now() < deadlineMs, `the destination does not decide: ${status?.status}`);
      await pause(5);
    }
    return false;
  }
}

async function strike({ from, afterMs }: Kill, victim: VmferryCommand, device: Promise<unknown>): Promise<void> {
  if (afterMs === NOBODY) return;
  if (from === 'device') await inTime(device, DEADLINE_MS, 'the switchover');
  await pause(afterMs);
  victim.kill('SIGKILL');
}

/** Also settles when the migration has ended without, or the process has. */
function deviceEvent(qmp: QmpClient): Promise<unknown> {
  const wanted = new Set<unknown>(['device', ...ENDS]);
  return qmp.waitForEvent(({ event, data }) => event === 'MIGRATION' && wanted.has(data['status'])).catch(() => {});
}

function ended(qmp: QmpClient) {
  const settled = { timeoutMs: DEADLINE_MS };
  return qmp.waitForMigration(ENDS, settled);
}

async function opens(path: string): Promise<boolean> {
  const reader = await CheckpointReader.open(path).catch(() => undefined);
  await reader?.close();
  return reader !== undefined;
}

/** Brings the machine of a checkpoint to life and verifies every page and register of it. */
async function expectWholeCheckpoint(path: string): Promise<void> {
  const reader = await CheckpointReader.open(path, { paused: true });
  const machine = await createWorkload({ ram: RAM, vcpus: 1, incoming: true });
  try {
    const { source } = await move({ source: reader, destination: machine, channels: memoryPair() }).ended;
    if (source.status !== 'completed') throw source.error;
    const { pagesBad, registersBad } = await machine.verify();
    assert.deepEqual({ pagesBad, registersBad }, { pagesBad: 0, registersBad: [] });
  } finally {
    await machine.dispose();
    await reader.close();
  }
}
