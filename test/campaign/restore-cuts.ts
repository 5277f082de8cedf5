/**
 * The link from a checkpoint into a QEMU is cut anywhere. QEMU never runs half a guest: it ends or stands, or it has got everything and the
 * guest is whole. vmferry ends at once and says where; the checkpoint is as it was.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { explain } from '../../src/base/index.ts';
import { CheckpointReader } from '../../src/machine/index.ts';
import { OutgoingMigration, type OutgoingResult } from '../../src/migration/index.ts';
import { receive } from '../../src/porcelain/index.ts';
import type { QemuPeer, QemuProcess } from '../../src/qemu/index.ts';
import { Settings } from '../../src/settings/index.ts';
import { connect, parseAddress } from '../../src/transport/index.ts';
import { testSettings } from '../support/move.ts';
import type { Campaign, Rig, Row } from './campaign.ts';
import { type Census, census, expectCensus } from './census.ts';
import { type Cut, CutLink, cutRow, drawCut, type Measured, measuredBy } from './cut-link.ts';
import { inTime } from './deadline.ts';
import { codesOf, expectWhere, saidBy } from './errors.ts';
import { expectArrived, finalState, isMoment, provedPeers, readGuest, startQemu } from './qemu-guest.ts';
import type { Random } from './random.ts';

const DEADLINE_MS = 30_000;
/** A guest that has arrived whole is looked at page by page; it takes this many tries to save one whole from QEMU 7.2 under TCG. */
const SAVES_MAX = 5;

interface RestoreCut {
  readonly peer: string;
  readonly cut: Cut;
  /** The process shall stay after a failure (where QEMU knows how). */
  readonly stays: boolean;
}

interface Ends {
  readonly result: OutgoingResult;
  /** Closed already. */
  readonly link: CutLink;
}

interface Checkpoint {
  readonly peer: QemuPeer;
  readonly file: string;
  readonly measured: Measured;
}

/** Without `peers`: all that are here. */
export function restoreCuts(peers?: readonly QemuPeer[]): Campaign<RestoreCut> {
  return {
    name: 'cuts from a checkpoint into QEMU',
    groups: ['qemu', 'place', 'how', 'QEMU', 'vmferry says'],
    open: async () => RestoreCutRig.open(peers ?? (await provedPeers())),
  };
}

class RestoreCutRig implements Rig<RestoreCut> {
  readonly #folder: string;
  readonly #checkpoints = new Map<string, Checkpoint>();
  #census: Census | undefined;

  private constructor(folder: string) {
    this.#folder = folder;
  }

  static async open(peers: readonly QemuPeer[]): Promise<RestoreCutRig> {
    assert(peers.length > 0, 'no QEMU here');
    const rig = new RestoreCutRig(await mkdtemp(join(tmpdir(), 'vmferry-cuts-')));
    try {
      for (const peer of peers) await rig.#prepare(peer);
      rig.#census = await census();
      return rig;
    } catch (error) {
      await rig.dispose();
      throw error;
    }
  }

  parameters(random: Random, index: number): RestoreCut {
    const peers = [...this.#checkpoints.keys()];
    const peer = peers[index % peers.length]!;
    return { peer, cut: drawCut(random, this.#checkpoints.get(peer)!.measured), stays: random.chance(0.5) };
  }

  async run({ peer: name, cut, stays }: RestoreCut): Promise<Row | undefined> {
    const { peer, file } = this.#checkpoints.get(name)!;
    const before = await stat(file);
    const qemu = await startQemu(peer, { incoming: true });
    try {
      const ends = await restoreOver(qemu, file, cut, stays);
      const what = await judge(qemu, ends);
      const { mtimeMs, size } = await stat(file);
      assert.deepEqual({ mtimeMs, size }, { mtimeMs: before.mtimeMs, size: before.size }, 'the checkpoint has changed');
      await qemu.stop();
      await expectCensus(this.#census!);
      const { cutAt, tap } = ends.link;
      if (cutAt === undefined) return undefined;
      return {
        qemu: name,
        ...cutRow(cut, cutAt, tap.landmarks),
        QEMU: what,
        'vmferry says': saidBy(ends.result),
      };
    } finally {
      await qemu.stop();
    }
  }

  async dispose(): Promise<void> {
    await rm(this.#folder, { recursive: true, force: true });
  }

  /** A checkpoint of a guest in this QEMU, and where the landmarks lie when it is sent. */
  async #prepare(peer: QemuPeer): Promise<void> {
    const file = join(this.#folder, `${peer.name}.ckpt`);
    const source = await startQemu(peer);
    try {
      for (let tries = 1; ; tries++) {
        await saveTo(source, file);
        if (isMoment(await readGuest(file))) break;
        assert(tries < SAVES_MAX, 'the guest is not whole');
        await finalState(source);
        await source.qmp.execute('cont');
      }
    } finally {
      await source.stop();
    }
    const destination = await startQemu(peer, { incoming: true });
    try {
      const { result, link } = await restoreOver(destination, file, undefined, false);
      if (result.status !== 'completed') throw new Error(`a whole restore failed: ${explain(result.error)}`);
      await expectArrived(destination);
      this.#checkpoints.set(peer.name, { peer, file, measured: measuredBy(link) });
    } finally {
      await destination.stop();
    }
  }
}

async function saveTo({ qmp }: QemuProcess, file: string): Promise<void> {
  let listening: (uri: string) => void = () => {};
  const uri = new Promise<string>((resolve) => {
    listening = resolve;
  });
  const receiving = receive({ uri: 'tcp:127.0.0.1:0', file, settings: new Settings(), listening });
  await qmp.execute('migrate', { uri: await uri });
  const [outcome] = await Promise.all([receiving, qmp.waitForMigration(['completed'])]);
  if (outcome.status !== 'completed') throw new Error(`no checkpoint: ${explain(outcome.error)}`);
}

async function restoreOver(qemu: QemuProcess, file: string, cut: Cut | undefined, stays: boolean): Promise<Ends> {
  const uri = 'tcp:127.0.0.1:0';
  const canStay = qemu.peer.name !== '7.2' && stays;
  await qemu.qmp.execute('migrate-incoming', canStay ? { uri, 'exit-on-error': false } : { uri });
  const [at] = (await qemu.qmp.execute('query-migrate'))['socket-address'] ?? [];
  assert(at?.type === 'inet');
  const link = await CutLink.open(parseAddress(`tcp:127.0.0.1:${at.port}`), cut);
  const machine = await CheckpointReader.open(file);
  try {
    const migration = new OutgoingMigration({
      machine,
      settings: testSettings(),
      connect: (signal) => connect(link.address, { signal }),
      returnPath: () => true,
    });
    const result = await inTime(migration.run(), DEADLINE_MS);
    return { result, link };
  } finally {
    await machine.close();
    await link.close();
  }
}

/** Throws what is wrong; else says what became of QEMU. */
async function judge(qemu: QemuProcess, { result, link }: Ends): Promise<string> {
  const state = await decided(qemu);
  if (result.status !== 'completed') expectWhere(result.error);
  if (state !== 'running') {
    assert(result.status === 'failed', `QEMU is ${state}, vmferry says ${result.status}`);
    return state;
  }
  assert(link.tap.landmarks.eof !== undefined, 'QEMU runs a guest that has not arrived');
  if (result.status !== 'completed') assert.match(codesOf(result.error), /^MIGRATION_UNCONFIRMED/);
  await expectArrived(qemu);
  return 'runs the whole guest';
}

/** What has become of a QEMU whose link has ended. */
async function decided(qemu: QemuProcess): Promise<string> {
  const deadlineMs = performance.now() + DEADLINE_MS;
  for (;;) {
    if (qemu.exit !== undefined) {
      assert.deepEqual(qemu.exit, { code: 1, signal: null }, `QEMU has not ended in order: ${qemu.stderr}`);
      return 'has ended';
    }
    const status = await qemu.qmp.execute('query-status').catch(() => undefined);
    const migration = await qemu.qmp.execute('query-migrate').catch(() => undefined);
    if (status?.running === true) return 'running';
    if (migration?.status === 'failed') return `stands (${status?.status})`;
    assert(performance.now() < deadlineMs, `QEMU does not decide: ${status?.status}, ${migration?.status}`);
    await pause(20);
  }
}
