/** What a move says of the wait for pages: by the destination's counters, by the source's, and by a look into its socket. */
import { readFileSync } from 'node:fs';
import type { MigrationRamStats } from '../src/migration/index.ts';
import type { QmpMigrationInfo } from '../src/qemu/index.ts';

export interface FaultSample {
  /** Of the wait for a page, microseconds: all waiting by faults, and percentiles by the histogram. */
  readonly meanUs: number;
  readonly p50Us: number;
  readonly p99Us: number;
  /** postcopy-latency, microseconds. In QEMU 11.1 it often does not fit the histogram and the blocktime of the same run: it is shown, and not used. */
  readonly toldMeanUs: number;
  /** Faults whose wait was measured. */
  readonly faults: number;
  readonly blocktimeMs: number;
  readonly totalMs: number;
  /** Bytes in the source's socket of the channel that requested pages take, looked at every SAMPLE_MS. */
  readonly socketBytes: Ahead;
  /** By vmferry's own count at each request. */
  readonly ahead?: AheadBytes;
}

export interface Ahead {
  readonly mean: number;
  readonly max: number;
}

export interface AheadBytes {
  /** In front of a requested page in user space. */
  readonly user: Ahead;
  /** Of the background, on its way. */
  readonly onTheWay: Ahead;
}

/** What a destination counts with postcopy-blocktime (QEMU from 10.1 on, vmferry): ns, ms, and faults by powers of two of microseconds. */
export interface BlocktimeInfo extends QmpMigrationInfo {
  readonly 'postcopy-blocktime'?: number;
  readonly 'postcopy-vcpu-blocktime'?: readonly number[];
  readonly 'postcopy-latency'?: number;
  readonly 'postcopy-latency-dist'?: readonly number[];
}

const SAMPLE_MS = 2;

type Latencies = Pick<FaultSample, 'meanUs' | 'toldMeanUs' | 'p50Us' | 'p99Us' | 'faults' | 'blocktimeMs'>;

export function latencies(info: BlocktimeInfo): Latencies {
  const { 'postcopy-latency': meanNs, 'postcopy-latency-dist': counts, 'postcopy-blocktime': blocktimeMs } = info;
  const { 'postcopy-vcpu-blocktime': vcpuMs } = info;
  if (meanNs === undefined || counts === undefined || blocktimeMs === undefined || vcpuMs === undefined)
    throw new Error('this destination counts no latencies (postcopy-blocktime, QEMU from 10.1 on)');
  const faults = counts.reduce((sum, count) => sum + count, 0);
  // Where there is one vCPU all wait when it does; QEMU's sum for a single vCPU loses waits as its mean does.
  const waitedMs = vcpuMs.length === 1 ? blocktimeMs : vcpuMs.reduce((sum, ms) => sum + ms, 0);
  return {
    meanUs: faults === 0 ? 0 : (waitedMs * 1000) / faults,
    toldMeanUs: meanNs / 1000,
    p50Us: percentile(counts, 0.5),
    p99Us: percentile(counts, 0.99),
    faults,
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

export function aheadOf(ram: Partial<MigrationRamStats> = {}): AheadBytes {
  return {
    user: { mean: ram['x-postcopy-ahead-mean'] ?? 0, max: ram['x-postcopy-ahead-max'] ?? 0 },
    onTheWay: { mean: ram['x-postcopy-on-the-way-mean'] ?? 0, max: ram['x-postcopy-on-the-way-max'] ?? 0 },
  };
}

/** Bytes that wait in a socket, sent or not, until the other side has acknowledged them. */
export class SocketWatch {
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

  get seen(): Ahead {
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
