/**
 * A Linux guest is restored from a checkpoint by postcopy into each QEMU. All of its memory has content. It must show another round of its
 * checks before a tenth of its memory has been sent, and no round may ever find anything corrupt - also where the link is cut on the way.
 */
import assert from 'node:assert/strict';
import { randomFillSync } from 'node:crypto';
import { open, rm } from 'node:fs/promises';
import { CheckpointReader } from '../../src/machine/index.ts';
import { findPeer, type QemuPeer, type QemuProcess } from '../../src/qemu/index.ts';
import { linuxGuest } from '../support/guests/guest.ts';
import { readTicks, ticked } from '../support/guests/linux-ticks.ts';
import { PostcopyRestore } from '../support/postcopy-restore.ts';
import { QemuLab } from '../support/qemu-lab.ts';
import type { Campaign, Rig, Row } from './campaign.ts';
import { provedPeers } from './qemu-guest.ts';
import type { Random } from './random.ts';

const MIB = 1024 * 1024;
const CUTS = 3;
/** Of the memory a second in the background: until the guest has shown a round, on however slow a machine, and until the last cut. */
const FIRST_SHARE = 0.002;
const THEN_SHARE = 0.05;
const TICK_TIMEOUT_MS = 120_000;
const FILL_MIB = 4;

interface CutAfter {
  /** Bytes on the main channel since the link was made, or since the round that was waited for. */
  readonly after: number;
  readonly how: 'reset' | 'end';
}

interface RestoreCase {
  readonly peer: string;
  readonly preempt: boolean;
  readonly cuts: readonly CutAfter[];
}

/** Cases take turns: each QEMU with and without preempt, with and without cuts. */
export function postcopyRestores(options: { ramMb?: number; peers?: readonly QemuPeer[] } = {}): Campaign<RestoreCase> {
  const { ramMb = 2048, peers } = options;
  return {
    name: `a Linux guest of ${ramMb} MiB restored by postcopy`,
    groups: ['qemu', 'preempt', 'cuts', 'guest'],
    open: async () => RestoreRig.open(ramMb, peers ?? (await provedPeers())),
  };
}

interface Saved {
  readonly peer: QemuPeer;
  readonly machine: string;
  readonly file: string;
  /** Where the guest was before; stopped, only its console counts. */
  readonly from: QemuProcess;
}

class RestoreRig implements Rig<RestoreCase> {
  readonly #lab: QemuLab;
  readonly #ramMb: number;
  readonly #peers: readonly QemuPeer[];
  #saved: Saved | undefined;

  private constructor(lab: QemuLab, ramMb: number, peers: readonly QemuPeer[]) {
    this.#lab = lab;
    this.#ramMb = ramMb;
    this.#peers = peers;
  }

  static async open(ramMb: number, peers: readonly QemuPeer[]): Promise<RestoreRig> {
    assert(peers.length > 0, 'no QEMU here');
    const lab = await QemuLab.with(linuxGuest({ cpus: 1, workMb: ramMb / 64, ramMb, devices: [] }));
    try {
      await fill(lab.path('ram'), ramMb);
      return new RestoreRig(lab, ramMb, peers);
    } catch (error) {
      await lab.close();
      throw error;
    }
  }

  parameters(random: Random, index: number): RestoreCase {
    const peer = this.#peers[Math.floor(index / 4) % this.#peers.length]!.name;
    // Three times this much is sent before the last one at most; all of memory has content.
    const most = (this.#ramMb * MIB) / 8;
    const cut = (): CutAfter => ({ after: random.int(1, most), how: random.pick(['reset', 'end']) });
    return { peer, preempt: index % 2 === 0, cuts: index % 4 < 2 ? Array.from({ length: CUTS }, cut) : [] };
  }

  async run({ peer, preempt, cuts }: RestoreCase): Promise<Row> {
    const saved = await this.#save(peer);
    const to = await this.#start(saved.peer, saved.machine, 'memory-backend-ram', true);
    const reader = await CheckpointReader.open(saved.file);
    let restore: PostcopyRestore | undefined;
    try {
      restore = await PostcopyRestore.open(reader, to, { preempt, bandwidth: this.#rate(FIRST_SHARE) });
      const startMs = performance.now();
      await restore.start();
      const share = await this.#firstTick(saved.from, restore);
      const tickMs = performance.now() - startMs;
      restore.bandwidth = this.#rate(THEN_SHARE);
      for (const { after, how } of cuts) {
        assert.equal(await restore.cut({ direction: 'toTarget', after, how }), 'paused');
        await restore.recover();
      }
      restore.bandwidth = 0;
      await restore.completed();
      const allMs = performance.now() - startMs;
      await this.#lab.guest.check([saved.from, to]);
      return {
        qemu: peer,
        preempt: preempt ? 'on' : 'off',
        cuts: String(cuts.length),
        guest: 'whole',
        tick: `ticked with ${(100 * share).toFixed(1)} % sent after ${(tickMs / 1000).toFixed(1)} s`,
        all: `all in ${(allMs / 1000).toFixed(1)} s, ${restore.requests} requests`,
      };
    } finally {
      await restore?.close();
      await reader.close();
      await to.stop();
    }
  }

  async dispose(): Promise<void> {
    await this.#lab.close();
  }

  /** So much of the memory a second, as a limit of bandwidth. */
  #rate(share: number): number {
    return Math.round(this.#ramMb * MIB * share);
  }

  /** The share of memory that had been sent when the guest showed its next round. */
  async #firstTick(from: QemuProcess, restore: PostcopyRestore): Promise<number> {
    const before = readTicks([from.serial.text]);
    const { serial } = restore.to;
    const consoles = () => [from.serial.text, serial.text];
    const more = () => ticked(readTicks(consoles()), before.rounds, 1) || undefined;
    await serial.waitFor(more, 'a round of the restored guest', TICK_TIMEOUT_MS);
    const share = restore.transferred / (this.#ramMb * MIB);
    assert(share < 0.1, `${(100 * share).toFixed(1)} % of memory had been sent when the guest ticked`);
    return share;
  }

  /** The guest at its work, saved: anew where another QEMU is to have it. */
  async #save(name: string): Promise<Saved> {
    if (this.#saved?.peer.name === name) return this.#saved;
    if (this.#saved !== undefined) await rm(this.#saved.file);
    this.#saved = undefined;
    const peer = this.#peers.find((one) => one.name === name);
    assert(peer !== undefined, `no QEMU ${name} here`);
    // 7.2 under TCG now and then leaves a page behind when it migrates: a later one saves its machine type.
    const saver = name === '7.2' ? ((await findPeer('10.0')) ?? peer) : peer;
    const machine = `pc-i440fx-${name}`;
    const backend = `memory-backend-file,mem-path=${this.#lab.path('ram')},share=off`;
    const from = await this.#start(saver, machine, backend, false);
    const file = await this.#lab.save(from, `${name}.ckpt`);
    await from.stop();
    this.#saved = { peer, machine, file, from };
    return this.#saved;
  }

  #start(peer: QemuPeer, machine: string, backend: string, incoming: boolean): Promise<QemuProcess> {
    return this.#lab.start(peer, {
      machine: `${machine},memory-backend=ram0`,
      incoming,
      args: ['-object', `${backend},id=ram0,size=${this.#ramMb}M`],
    });
  }
}

/** Memory as a guest finds it that is not the first: Linux does not clear what it does not use. */
async function fill(path: string, ramMb: number): Promise<void> {
  const file = await open(path, 'wx');
  try {
    const piece = Buffer.alloc(FILL_MIB * MIB);
    randomFillSync(piece);
    for (let mib = 0; mib < ramMb; mib += FILL_MIB) await file.write(piece);
  } finally {
    await file.close();
  }
}
