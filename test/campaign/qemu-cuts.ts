/**
 * The link from a QEMU into a checkpoint is cut anywhere. QEMU's guest runs on by itself; there is no file, final or temporary - unless
 * the cut came when everything was committed: then the file is whole, and the message says that the source may not know.
 */
import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { explain } from '../../src/base/index.ts';
import { type Outcome, receive } from '../../src/porcelain/index.ts';
import type { QemuPeer, QemuProcess, QmpMigrationInfo } from '../../src/qemu/index.ts';
import { Settings } from '../../src/settings/index.ts';
import { parseAddress } from '../../src/transport/index.ts';
import type { Campaign, Rig, Row } from './campaign.ts';
import { type Census, census, expectCensus } from './census.ts';
import { type Cut, CutLink, cutRow, drawCut, type Measured, measuredBy } from './cut-link.ts';
import { expectWhere, saidBy } from './errors.ts';
import {
  CounterSink,
  expectMoment,
  expectWhole,
  expectWorks,
  finalState,
  provedPeers,
  readGuest,
  startQemu,
} from './qemu-guest.ts';
import type { Random } from './random.ts';

const FILE = 'machine.ckpt';
const DEADLINE_MS = 60_000;
/** All pages of the guest are looked at after every so many cuts; that it works on, after each. */
const WHOLE_EVERY = 8;

interface QemuCut {
  readonly peer: string;
  readonly cut: Cut;
  readonly maxBandwidth: number;
}

interface Ends {
  readonly qemu: QmpMigrationInfo;
  readonly outcome: Outcome;
  /** Closed already. */
  readonly link: CutLink;
  /** The guest's counters in the pages that QEMU has sent. */
  readonly sent: Uint32Array;
}

/** Without `peers`: all that are here. */
export function qemuCuts(peers?: readonly QemuPeer[]): Campaign<QemuCut> {
  return {
    name: 'cuts from QEMU into a checkpoint',
    groups: ['qemu', 'place', 'how', 'guest', 'vmferry says'],
    open: async () => QemuCutRig.open(peers ?? (await provedPeers())),
  };
}

interface Source {
  readonly qemu: QemuProcess;
  readonly measured: Measured;
}

class QemuCutRig implements Rig<QemuCut> {
  readonly #folder: string;
  readonly #sources = new Map<string, Source>();
  #census: Census | undefined;
  #cases = 0;

  private constructor(folder: string) {
    this.#folder = folder;
  }

  static async open(peers: readonly QemuPeer[]): Promise<QemuCutRig> {
    assert(peers.length > 0, 'no QEMU here');
    const rig = new QemuCutRig(await mkdtemp(join(tmpdir(), 'vmferry-cuts-')));
    try {
      for (const peer of peers) {
        const qemu = await startQemu(peer);
        rig.#sources.set(peer.name, { qemu, measured: {} as Measured });
        rig.#sources.set(peer.name, { qemu, measured: await rig.#measure(qemu) });
      }
      rig.#census = await census();
      return rig;
    } catch (error) {
      await rig.dispose();
      throw error;
    }
  }

  parameters(random: Random, index: number): QemuCut {
    const peers = [...this.#sources.keys()];
    const peer = peers[index % peers.length]!;
    return { peer, cut: drawCut(random, this.#sources.get(peer)!.measured), maxBandwidth: random.pick([0, 60e6]) };
  }

  async run({ peer, cut, maxBandwidth }: QemuCut): Promise<Row | undefined> {
    const { qemu } = this.#sources.get(peer)!;
    const ends = await this.#save(qemu, maxBandwidth, cut);
    const guest = await this.#judge(qemu, ends, cut);
    await expectCensus(this.#census!);
    if (++this.#cases % WHOLE_EVERY === 0) await expectWhole(qemu);
    const { cutAt, tap } = ends.link;
    if (cutAt === undefined) return undefined;
    return {
      qemu: peer,
      ...cutRow(cut, cutAt, tap.landmarks),
      guest,
      'vmferry says': saidBy(ends.outcome),
    };
  }

  async dispose(): Promise<void> {
    await Promise.all([...this.#sources.values()].map(({ qemu }) => qemu.stop()));
    await rm(this.#folder, { recursive: true, force: true });
  }

  async #measure(qemu: QemuProcess): Promise<Measured> {
    const { qemu: info, outcome, link, sent } = await this.#save(qemu, 0, undefined);
    if (info.status !== 'completed' || outcome.status !== 'completed') {
      throw new Error(`a whole migration failed: ${info['error-desc'] ?? ''}; ${explain(outcome.error)}`);
    }
    await this.#expectFile(qemu, sent);
    await finalState(qemu);
    await qemu.qmp.execute('cont');
    return measuredBy(link);
  }

  async #save({ qmp }: QemuProcess, maxBandwidth: number, cut: Cut | undefined): Promise<Ends> {
    await qmp.execute('migrate-set-parameters', { 'max-bandwidth': maxBandwidth });
    const giveUp = new AbortController();
    const deadline = setTimeout(() => giveUp.abort(new Error(`no end within ${DEADLINE_MS} ms`)), DEADLINE_MS);
    let listening: (uri: string) => void = () => {};
    const uri = new Promise<string>((resolve) => {
      listening = resolve;
    });
    const file = join(this.#folder, FILE);
    const receiving = receive({
      uri: 'tcp:127.0.0.1:0',
      file,
      settings: new Settings(),
      signal: giveUp.signal,
      listening,
    });
    const link = await CutLink.open(parseAddress(await uri), cut);
    let sink = new CounterSink([]);
    link.tap.sinkFor = (blocks) => {
      sink = new CounterSink(blocks);
      return sink;
    };
    try {
      await qmp.execute('migrate', { uri: `tcp:127.0.0.1:${link.address.port}` });
      const [qemu, outcome] = await Promise.all([
        qmp.waitForMigration(['completed', 'failed', 'cancelled'], { timeoutMs: DEADLINE_MS }),
        receiving,
      ]);
      assert(!giveUp.signal.aborted, 'vmferry did not end by itself');
      return { qemu, outcome, link, sent: sink.counters };
    } finally {
      clearTimeout(deadline);
      giveUp.abort();
      await receiving;
      await link.close();
    }
  }

  /** Throws what is wrong; else says what became of the guest. QEMU's guest runs afterwards, and the folder is empty. */
  async #judge(qemu: QemuProcess, { qemu: info, outcome, sent }: Ends, { how }: Cut): Promise<string> {
    const files = await readdir(this.#folder);
    const status = await finalState(qemu);
    let what = 'runs on';
    if (outcome.status === 'completed') {
      assert.deepEqual(files, [FILE]);
      await this.#expectFile(qemu, sent);
      // Whoever ends both directions in order looks to vmferry like a source that has heard it.
      if (info.status !== 'completed' && how !== 'end') assert.match(outcome.message, /source may not have heard/);
      what = 'runs on; the file is whole';
    } else {
      assert.deepEqual(files, [], 'a file is left');
      assert(outcome.error !== undefined);
      expectWhere(outcome.error);
      assert.equal(info.status, 'failed', 'without a file the migration cannot be completed');
    }
    if (info.status === 'completed') {
      assert.equal(status, 'postmigrate');
      await qemu.qmp.execute('cont');
      what = 'stopped; the file is whole';
    } else {
      assert.equal(status, 'running', 'the guest does not run on');
    }
    await expectWorks(qemu);
    return what;
  }

  /** The file is whole and holds what was sent; it is taken away. */
  async #expectFile(qemu: QemuProcess, sent: Uint32Array): Promise<void> {
    const file = join(this.#folder, FILE);
    const counters = await readGuest(file);
    assert.deepEqual(counters, sent, 'the file holds other pages than were sent');
    expectMoment(qemu, counters);
    await rm(file);
  }
}
