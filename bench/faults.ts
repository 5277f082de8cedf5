/** One postcopy into QEMU 11.1 of a guest that wants its pages faster than they come, and what QEMU says of the wait for each. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Outcome } from '../src/porcelain/index.ts';
import { type QemuPeer, QemuProcess, type QmpMigrationInfo } from '../src/qemu/index.ts';
import { type BootProgram, bootProgram } from '../test/support/guests/boot-sector.ts';
import { bootGuest, type Guest } from '../test/support/guests/guest.ts';
import { migrated, VmferryProcess } from './processes.ts';

export type Source = 'QEMU 11.1' | 'vmferry';
export type Order = BootProgram['order'];

export interface FaultMove {
  readonly source: Source;
  readonly preempt: boolean;
}

export interface FaultSample {
  /** Of the wait for a page, microseconds; the percentiles by the histogram. */
  readonly meanUs: number;
  readonly p50Us: number;
  readonly p99Us: number;
  /** Faults whose wait was measured. */
  readonly faults: number;
  readonly blocktimeMs: number;
  readonly totalMs: number;
  /** Bytes in the source's socket of the channel that requested pages take, looked at every SAMPLE_MS. */
  readonly socketBytes: { readonly mean: number; readonly max: number };
  /** Bytes in front of a requested page in user space, by vmferry's own count at each request. */
  readonly userBytes?: { readonly mean: number; readonly max: number };
}

const PAGE = 4096;
const MIB = 1024 * 1024;
const SAMPLE_MS = 2;
const DEADLINE_MS = 120_000;
/** What the destination listens on: what goes there can be shaped, what it says not. */
const DESTINATION = '127.0.0.2';

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
      const { 'x-postcopy-ahead-mean': mean = 0, 'x-postcopy-ahead-max': max = 0 } = ram ?? {};
      return { totalMs: totalTimeMs, userBytes: { mean, max } };
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

type Sent = Pick<FaultSample, 'totalMs' | 'userBytes'>;

function on(...names: readonly string[]) {
  return { capabilities: names.map((capability) => ({ capability, state: true })) };
}

/** What a QEMU from 10.1 on counts with postcopy-blocktime: nanoseconds, and faults by powers of two of microseconds. */
interface BlocktimeInfo extends QmpMigrationInfo {
  readonly 'postcopy-blocktime'?: number;
  readonly 'postcopy-latency'?: number;
  readonly 'postcopy-latency-dist'?: readonly number[];
}

function latencies(info: BlocktimeInfo): Omit<FaultSample, keyof Sent | 'socketBytes'> {
  const { 'postcopy-latency': meanNs, 'postcopy-latency-dist': counts, 'postcopy-blocktime': blocktimeMs } = info;
  if (meanNs === undefined || counts === undefined || blocktimeMs === undefined)
    throw new Error('this QEMU counts no latencies (postcopy-blocktime, from 10.1 on)');
  return {
    meanUs: meanNs / 1000,
    p50Us: percentile(counts, 0.5),
    p99Us: percentile(counts, 0.99),
    faults: counts.reduce((sum, count) => sum + count, 0),
    blocktimeMs,
  };
}

/** Bucket n holds faults of 2^n to 2^(n+1) microseconds; within one they are taken to be spread evenly. */
function percentile(counts: readonly number[], share: number): number {
  const wanted = counts.reduce((sum, count) => sum + count, 0) * share;
  let below = 0;
  for (const [bucket, count] of counts.entries()) {
    if (count > 0 && below + count >= wanted) return 2 ** bucket * (1 + (wanted - below) / count);
    below += count;
  }
  return 0;
}

/** Bytes that wait in a socket, sent or not, until the other side has acknowledged them. */
class SocketWatch {
  readonly #port: string;
  readonly #connection: number;
  readonly #timer: NodeJS.Timeout;
  #sum = 0;
  #looks = 0;
  #max = 0;

  /** The connection to `port` that was made as the `connection`th, counted from 0. */
  constructor(port: number, connection: number) {
    this.#port = `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
    this.#connection = connection;
    this.#timer = setInterval(() => this.#look(), SAMPLE_MS);
  }

  get seen(): { readonly mean: number; readonly max: number } {
    return { mean: this.#looks === 0 ? 0 : this.#sum / this.#looks, max: this.#max };
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** /proc/net/tcp: local and remote address, state (01: established), tx_queue:rx_queue; inodes grow as sockets are made. */
  #look(): void {
    const mine = readFileSync('/proc/net/tcp', 'latin1')
      .split('\n')
      .map((line) => line.trim().split(/\s+/))
      .filter((fields) => fields[2]?.endsWith(this.#port) === true && fields[3] === '01')
      .sort((a, b) => Number(a[9]) - Number(b[9]));
    const queues = mine[this.#connection]?.[4];
    if (queues === undefined) return;
    const bytes = Number.parseInt(queues, 16);
    this.#sum += bytes;
    this.#looks++;
    this.#max = Math.max(this.#max, bytes);
  }
}
