/** One postcopy into QEMU 11.1 of a guest that wants its pages faster than they come, and what QEMU says of the wait for each. */
import { join } from 'node:path';
import type { Outcome } from '../src/porcelain/index.ts';
import { type QemuPeer, QemuProcess } from '../src/qemu/index.ts';
import { type BootProgram, bootProgram } from '../test/support/guests/boot-sector.ts';
import { bootGuest, type Guest } from '../test/support/guests/guest.ts';
import { type AheadBytes, aheadOf, type FaultSample, latencies, SocketWatch } from './fault-figures.ts';
import { DESTINATION } from './own-network.ts';
import { migrated, VmferryProcess } from './processes.ts';

export type Source = 'QEMU 11.1' | 'vmferry';
export type Order = BootProgram['order'];

export interface FaultMove {
  readonly source: Source;
  readonly preempt: boolean;
}

const PAGE = 4096;
const MIB = 1024 * 1024;
const DEADLINE_MS = 120_000;

/** A guest that adds one to every page of its memory for ever, saved after its first pass. `close` removes the file. */
export class FaultGuest {
  readonly #peer: QemuPeer;
  readonly #guest: Guest;
  readonly #memory: string;
  readonly #file: string;

  private constructor(peer: QemuPeer, guest: Guest, memoryMib: number, file: string) {
    this.#peer = peer;
    this.#guest = guest;
    this.#memory = `${memoryMib}M`;
    this.#file = file;
  }

  /** `workMib`: a power of two. */
  static async save(peer: QemuPeer, folder: string, workMib: number, order: Order): Promise<FaultGuest> {
    const guest = bootGuest(bootProgram({ order, pageCount: (workMib * MIB) / PAGE }));
    const saved = new FaultGuest(peer, guest, workMib + 64, join(folder, `${order}.ckpt`));
    const qemu = await saved.#start([]);
    const receive = new VmferryProcess(['receive', 'tcp:127.0.0.1:0', '--to', saved.#file]);
    try {
      await guest.ready(qemu);
      const { uri } = await receive.line('listening');
      await qemu.qmp.execute('migrate-set-parameters', { 'max-bandwidth': 0, 'downtime-limit': 30_000 });
      await qemu.qmp.execute('migrate-set-capabilities', on('return-path'));
      await qemu.qmp.execute('migrate', { uri: String(uri) });
      await migrated(qemu.qmp);
      await receive.line('result');
    } finally {
      await Promise.all([qemu.stop(), receive.stop()]);
    }
    return saved;
  }

  async move({ source, preempt }: FaultMove): Promise<FaultSample> {
    const capabilities = ['postcopy-ram', ...(preempt ? ['postcopy-preempt'] : [])];
    const to = await this.#start(['-incoming', 'defer']);
    try {
      await to.qmp.execute('migrate-set-capabilities', on(...capabilities, 'postcopy-blocktime'));
      await to.qmp.execute('migrate-incoming', { uri: `tcp:${DESTINATION}:0` });
      const { 'socket-address': [at] = [] } = await to.qmp.execute('query-migrate');
      if (at?.type !== 'inet') throw new Error('the destination does not listen');
      const sockets = new SocketWatch(Number(at.port), preempt ? 1 : 0);
      const uri = `tcp:${DESTINATION}:${at.port}`;
      const send = source === 'vmferry' ? this.#sendByVmferry : this.#sendByQemu;
      let sent: Sent;
      try {
        sent = await send.call(this, uri, capabilities);
      } finally {
        sockets.stop();
      }
      await to.qmp.waitForMigration(['completed'], { timeoutMs: DEADLINE_MS });
      return { ...latencies(await to.qmp.execute('query-migrate')), ...sent, socketBytes: sockets.seen };
    } finally {
      await to.stop();
    }
  }

  async #sendByVmferry(uri: string, capabilities: readonly string[]): Promise<Sent> {
    const set = capabilities.flatMap((name) => ['--set', `${name}=on`]);
    const from = new VmferryProcess(['send', this.#file, uri, '--postcopy', ...set]);
    try {
      const { status, totalTimeMs = 0, ram } = (await from.line('result')) as unknown as Outcome;
      if (status !== 'completed') throw new Error(`vmferry send ${status}`);
      return { totalMs: totalTimeMs, ahead: aheadOf(ram) };
    } finally {
      await from.stop();
    }
  }

  /** A QEMU that has loaded the same file, and has sent next to nothing when the guest goes over. */
  async #sendByQemu(uri: string, capabilities: readonly string[]): Promise<Sent> {
    const from = await this.#start(['-incoming', 'defer']);
    try {
      const { qmp } = from;
      await qmp.execute('migrate-set-capabilities', on('mapped-ram'));
      await qmp.execute('migrate-incoming', { uri: `file:${this.#file}` });
      await qmp.waitForMigration(['completed'], { timeoutMs: DEADLINE_MS });
      await qmp.execute('migrate-set-capabilities', {
        capabilities: [{ capability: 'mapped-ram', state: false }, ...on(...capabilities).capabilities],
      });
      await qmp.execute('migrate-set-parameters', { 'max-bandwidth': 1 });
      await qmp.execute('migrate', { uri });
      await qmp.waitForMigration(['active'], { timeoutMs: DEADLINE_MS });
      await qmp.execute('migrate-start-postcopy');
      const { ms } = await migrated(qmp);
      return { totalMs: ms };
    } finally {
      await from.stop();
    }
  }

  #start(args: readonly string[]): Promise<QemuProcess> {
    return QemuProcess.start({
      peer: this.#peer,
      args: async (folder) => [
        ...['-nodefaults', '-machine', 'pc', '-accel', 'tcg', '-m', this.#memory],
        ...(await this.#guest.args(folder, folder)),
        ...args,
      ],
    });
  }
}

interface Sent {
  readonly totalMs: number;
  readonly ahead?: AheadBytes;
}

function on(...names: readonly string[]) {
  return { capabilities: names.map((capability) => ({ capability, state: true })) };
}
