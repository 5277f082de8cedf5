/**
 * One vmferry process as its manager sees it: a machine, its settings and at most one outgoing or incoming migration. The QMP server
 * (`control`) and the CLI talk to this and to nothing below it.
 */
import type { RunState } from '../machine/index.ts';
import type { Settings } from '../settings/index.ts';
import type { Objects } from './objects.ts';

/** MigrationStatus of qapi/migration.json. */
export type MigrationStatus =
  | 'none'
  | 'setup'
  | 'active'
  | 'pre-switchover'
  | 'device'
  | 'postcopy-device'
  | 'postcopy-active'
  | 'postcopy-paused'
  | 'postcopy-recover-setup'
  | 'postcopy-recover'
  | 'completed'
  | 'failed'
  | 'cancelling'
  | 'cancelled';

/** MigrationInfo of qapi/migration.json: names and units are QEMU's (times ms, rates mbps = megabits/s, sizes bytes). */
export interface MigrationInfo {
  status?: MigrationStatus;
  ram?: MigrationRamStats;
  'xbzrle-cache'?: XbzrleStats;
  'total-time'?: number;
  'expected-downtime'?: number;
  downtime?: number;
  'setup-time'?: number;
  'cpu-throttle-percentage'?: number;
  'error-desc'?: string;
  /** Destination, with postcopy-blocktime: how long vCPUs waited for pages (ms), and how long a fault took (ns; the distribution by powers of two us). */
  'postcopy-blocktime'?: number;
  'postcopy-vcpu-blocktime'?: readonly number[];
  'postcopy-latency'?: number;
  'postcopy-latency-dist'?: readonly number[];
  'postcopy-vcpu-latency'?: readonly number[];
  'postcopy-non-vcpu-latency'?: number;
  'blocked-reasons'?: string[];
  /** Destination: where the source is awaited. */
  'socket-address'?: ({ type: 'inet'; host: string; port: string } | { type: 'unix'; path: string })[];
  /** vmferry's own, x- as QEMU marks such: what the migration waits for now, or how to go on after a failure. */
  'x-waiting-for'?: string;
  /** With postcopy-preempt: how many channels for requested pages the two ends use. */
  'x-postcopy-preempt-channels'?: number;
  /** Source: how often devices could not be stopped in time, so that the guest went on. */
  'x-missed-stops'?: number;
  /** Source: whether the destination has said that its devices are ready; missed: it did not, and the switchover went on without. */
  'x-switchover-ack'?: 'awaited' | 'given' | 'missed';
  /** With x-vmferry-handshake, once the ends have shaken hands. */
  'x-handshake'?: HandshakeInfo;
}

export interface HandshakeInfo {
  /** Settings in which the ends differed: as each had them, and as both use them. */
  readonly settled: readonly {
    readonly name: string;
    readonly value: string;
    readonly source: string;
    readonly destination: string;
  }[];
  /** What the comparison has found that need not stop the migration. */
  readonly warnings: readonly string[];
}

export interface MigrationRamStats {
  transferred: number;
  remaining: number;
  total: number;
  duplicate: number;
  normal: number;
  'normal-bytes': number;
  'dirty-pages-rate': number;
  mbps: number;
  'dirty-sync-count': number;
  'postcopy-requests': number;
  'page-size': number;
  'multifd-bytes': number;
  'pages-per-second': number;
  'precopy-bytes': number;
  'downtime-bytes': number;
  'postcopy-bytes': number;
  'dirty-sync-missed-zero-copy': number;
  /** Of a postcopy once a page was asked for: bytes in user space before it, on the channel that such pages take. */
  'x-postcopy-ahead-mean'?: number;
  'x-postcopy-ahead-max'?: number;
  /** The same of the background that was on its way, up to where it is placed at the destination. */
  'x-postcopy-on-the-way-mean'?: number;
  'x-postcopy-on-the-way-max'?: number;
}

export interface XbzrleStats {
  'cache-size': number;
  bytes: number;
  pages: number;
  'cache-miss': number;
  'cache-miss-rate': number;
  'encoding-rate': number;
  overflow: number;
}

/** Events a host emits; names and data as QMP has them. */
export type HostEvent =
  | { readonly event: 'MIGRATION'; readonly data: { readonly status: MigrationStatus } }
  | { readonly event: 'MIGRATION_PASS'; readonly data: { readonly pass: number } }
  | { readonly event: 'STOP' }
  | { readonly event: 'RESUME' }
  | { readonly event: 'SHUTDOWN'; readonly data: { readonly guest: boolean; readonly reason: string } };

export interface HostStatus {
  readonly running: boolean;
  readonly status: RunState;
}

/** MigrationThreadInfo of qapi/migration.json. */
export interface MigrationThread {
  readonly name: string;
  /** The kernel's. */
  readonly 'thread-id': number;
}

/** What the QMP server needs of a process. Every method throws FerryError when refused; the message is QEMU's style of sentence. */
export interface Host {
  readonly name: string;
  readonly settings: Settings;
  /** What object-add has declared. */
  readonly objects: Objects;
  status(): HostStatus;
  /** QMP stop / cont. */
  stop(): Promise<void>;
  cont(): Promise<void>;
  /** Starts an outgoing migration and returns once it is under way (QMP migrate); with `resume` a paused postcopy goes on. */
  migrate(uri: string, options?: { readonly resume?: boolean }): Promise<void>;
  /** QMP migrate-start-postcopy: the outgoing migration goes over to postcopy as soon as it can. */
  migrateStartPostcopy(): Promise<void>;
  /** QMP migrate-pause: a running postcopy, either side of it, gives its connection up. */
  migratePause(): Promise<void>;
  /** QMP migrate-recover: the source of a paused postcopy is awaited at another address. */
  migrateRecover(uri: string): Promise<void>;
  /**
   * QMP migrate-incoming: the process must be waiting (`-incoming defer`). If the migration fails the process ends with status 1, unless
   * `exitOnError` is false: then it lives on in state failed and query-migrate tells why.
   */
  migrateIncoming(uri: string, options?: { readonly exitOnError?: boolean }): Promise<void>;
  migrateCancel(): Promise<void>;
  /** QMP migrate-continue: `state` must be the state the migration waits in (pre-switchover). */
  migrateContinue(state: MigrationStatus): Promise<void>;
  queryMigrate(): MigrationInfo;
  /** Threads that send or receive pages now. */
  queryMigrationThreads(): readonly MigrationThread[];
  /** Ends the process in order: SHUTDOWN event, listeners closed. */
  quit(): Promise<void>;
  /** Calls `listener` for every event from now on; returns how to stop. */
  onEvent(listener: (event: HostEvent) => void): () => void;
}
