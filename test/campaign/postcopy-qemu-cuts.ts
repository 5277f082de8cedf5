/**
 * A checkpoint is restored into a QEMU by postcopy, and once the guest runs there one connection is cut anywhere: the main channel, the preempt
 * channel, or what the destination says. Both sides pause, another connection is made - which may be cut as well - and in the end the guest is
 * whole, page by page.
 */
import assert from 'node:assert/strict';
import { CheckpointReader } from '../../src/machine/index.ts';
import { findPeer, type QemuPeer, type QemuProcess } from '../../src/qemu/index.ts';
import { bootProgram } from '../support/guests/boot-sector.ts';
import { bootGuest } from '../support/guests/guest.ts';
import { DIES_OF_PREEMPT_RECOVERY, type Passed, PostcopyRestore } from '../support/postcopy-restore.ts';
import { QemuLab } from '../support/qemu-lab.ts';
import type { Campaign, Rig, Row } from './campaign.ts';
import { census, expectCensus } from './census.ts';
import { provedPeers } from './qemu-guest.ts';
import type { Random } from './random.ts';

/** The guest's 8 MiB take a second in the background; it has asked for most of them before. */
const BANDWIDTH = 8_000_000;
/** Where in what an uncut run says on the channel a cut may lie, in thousandths: at the end of it all may be over already. */
const PLACE_MAX = 950;
/** The bitmap of 128 MiB has so many bytes: what a destination says in a recovery is more than that. */
const BITMAP_BYTES = 4096;
/** QEMU dies of a recovery that breaks, whoever is the source. */
const DIES_OF_BROKEN_RECOVERY = '7.2';

const CHANNELS = {
  main: { direction: 'toTarget', connection: 0 },
  preempt: { direction: 'toTarget', connection: 1 },
  'return path': { direction: 'toClient', connection: 0 },
} as const;
type ChannelName = keyof typeof CHANNELS;

type How = 'reset' | 'end';

interface PostcopyCut {
  readonly peer: string;
  /** Version of the machine type, which tells the dialect of preempt. */
  readonly machine: string;
  readonly preempt: boolean;
  readonly channel: ChannelName;
  /** Thousandths of the bytes that an uncut run has on the channel after the guest runs at the destination. */
  readonly place: number;
  readonly how: How;
  /** The next connection is cut too, behind so many bytes of what the destination says on it. */
  readonly again?: { readonly after: number; readonly how: How };
}

/** Without `peers`: all that are here. */
export function postcopyQemuCuts(peers?: readonly QemuPeer[]): Campaign<PostcopyCut> {
  return {
    name: 'cuts of a postcopy into QEMU',
    groups: ['qemu', 'machine', 'preempt', 'channel', 'how', 'then'],
    open: async () => PostcopyCutRig.open(peers ?? (await provedPeers())),
  };
}

interface Saved {
  readonly peer: QemuPeer;
  readonly machine: string;
  readonly file: string;
  readonly from: QemuProcess;
}

class PostcopyCutRig implements Rig<PostcopyCut> {
  readonly #lab: QemuLab;
  readonly #peers: readonly QemuPeer[];
  readonly #saved = new Map<string, Promise<Saved>>();
  readonly #measured = new Map<string, Promise<Record<ChannelName, number>>>();

  private constructor(lab: QemuLab, peers: readonly QemuPeer[]) {
    this.#lab = lab;
    this.#peers = peers;
  }

  static async open(peers: readonly QemuPeer[]): Promise<PostcopyCutRig> {
    assert(peers.length > 0, 'no QEMU here');
    return new PostcopyCutRig(
      await QemuLab.with(bootGuest(bootProgram({ order: 'random', pageCount: 2048, spin: 100 }))),
      peers,
    );
  }

  parameters(random: Random): PostcopyCut {
    const peer = random.pick(this.#peers).name;
    const preempt = peer !== DIES_OF_PREEMPT_RECOVERY && random.chance(0.7);
    const how = (): How => random.pick(['reset', 'end']);
    const again = peer !== DIES_OF_BROKEN_RECOVERY && random.chance(0.3);
    return {
      peer,
      machine: random.pick(['7.2', peer]),
      preempt,
      channel: random.pick(preempt ? ['main', 'preempt', 'return path'] : ['main', 'return path']),
      place: random.int(0, PLACE_MAX),
      how: how(),
      ...(again ? { again: { after: random.int(1, BITMAP_BYTES), how: how() } } : {}),
    };
  }

  async run({ peer, machine, preempt, channel, place, how, again }: PostcopyCut): Promise<Row | undefined> {
    const saved = await this.#save(peer, machine);
    const uncut = await this.#measure(saved, preempt);
    const before = await census();
    const after = Math.floor((uncut[channel] * place) / 1000);
    const then = await this.#restored(saved, preempt, async (restore) => {
      const then = await restore.cut({ ...CHANNELS[channel], after, how });
      if (then !== 'paused') return then;
      await restore.recover(again && { direction: 'toClient', ...again });
      restore.bandwidth = 0;
      return again === undefined ? 'recovered' : 'recovered at the second try';
    });
    await expectCensus(before);
    if (then === 'over') return undefined;
    return { qemu: peer, machine, preempt: preempt ? 'on' : 'off', channel, how, then, at: `byte ${after}` };
  }

  async dispose(): Promise<void> {
    await this.#lab.close();
  }

  /** Restores the guest into a fresh QEMU, has `act` do what it wants as soon as the guest runs there, and sees it whole. */
  async #restored<T>(saved: Saved, preempt: boolean, act: (restore: PostcopyRestore) => Promise<T>): Promise<T> {
    const { peer, machine, file, from } = saved;
    const to = await this.#lab.start(peer, { machine, incoming: true });
    const reader = await CheckpointReader.open(file);
    let restore: PostcopyRestore | undefined;
    try {
      restore = await PostcopyRestore.open(reader, to, { preempt, bandwidth: BANDWIDTH });
      await restore.start();
      const result = await act(restore);
      if (result !== 'arrived') await restore.completed();
      await this.#lab.guest.check([from, to]);
      return result;
    } finally {
      await restore?.close();
      await reader.close();
      await to.stop();
    }
  }

  /** The guest at its work, saved, with that version of the machine. */
  #save(name: string, version: string): Promise<Saved> {
    const machine = `pc-i440fx-${version}`;
    return once(this.#saved, `${name} ${version}`, async () => {
      const peer = this.#peers.find((one) => one.name === name);
      assert(peer !== undefined, `no QEMU ${name} here`);
      // 7.2 under TCG now and then leaves a page behind when it migrates.
      const saver = name === '7.2' ? ((await findPeer('10.0')) ?? peer) : peer;
      const from = await this.#lab.start(saver, { machine });
      const file = await this.#lab.save(from, `${name}-${version}.ckpt`);
      await from.stop();
      return { peer, machine, file, from };
    });
  }

  /** Bytes that go over the channels after the guest runs there, in a run that is not cut. */
  #measure(saved: Saved, preempt: boolean): Promise<Record<ChannelName, number>> {
    return once(this.#measured, `${saved.peer.name} ${saved.machine} ${preempt}`, () =>
      this.#restored(saved, preempt, async (restore) => {
        const before = structuredClone(restore.passed);
        await restore.completed();
        const bytes = (name: ChannelName) => on(name, restore.passed) - on(name, before);
        return { main: bytes('main'), preempt: bytes('preempt'), 'return path': bytes('return path') };
      }),
    );
  }
}

function on(name: ChannelName, passed: Passed): number {
  const { connection, direction } = CHANNELS[name];
  return passed[connection]?.[direction] ?? 0;
}

function once<T>(made: Map<string, Promise<T>>, key: string, make: () => Promise<T>): Promise<T> {
  const known = made.get(key);
  if (known !== undefined) return known;
  const making = make();
  made.set(key, making);
  return making;
}
