/**
 * The QMP commands and replies vmferry uses, with QEMU's names and types (qapi/*.json). Replies are what the peer says they are: nothing
 * here is checked at run time, so whoever branches on a reply compares it with the values it knows. Integers above 2^53 lose precision.
 */

/** MigrationStatus; a newer peer may know more. */
export type QmpMigrationStatus =
  | 'none'
  | 'setup'
  | 'cancelling'
  | 'cancelled'
  | 'active'
  | 'postcopy-active'
  | 'postcopy-device'
  | 'postcopy-paused'
  | 'postcopy-recover-setup'
  | 'postcopy-recover'
  | 'completed'
  | 'failing'
  | 'failed'
  | 'colo'
  | 'pre-switchover'
  | 'device'
  | 'wait-unplug';

/** States in which a migration is over. */
export const ENDED: ReadonlySet<string> = new Set(['completed', 'failed', 'cancelled']);

/** Reply of query-migrate. Times in ms, sizes in bytes, `mbps` in megabits a second. `{}` if there never was a migration. */
export interface QmpMigrationInfo {
  readonly status?: QmpMigrationStatus;
  readonly ram?: {
    readonly transferred: number;
    readonly remaining: number;
    readonly total: number;
    readonly duplicate: number;
    readonly normal: number;
    readonly 'normal-bytes': number;
    readonly 'dirty-pages-rate': number;
    readonly mbps: number;
    readonly 'dirty-sync-count': number;
    readonly 'page-size': number;
    readonly 'pages-per-second': number;
    readonly 'precopy-bytes'?: number;
    readonly 'downtime-bytes'?: number;
    readonly 'postcopy-bytes'?: number;
    readonly 'postcopy-requests'?: number;
    readonly 'multifd-bytes'?: number;
  };
  readonly 'xbzrle-cache'?: {
    readonly 'cache-size': number;
    readonly bytes: number;
    readonly pages: number;
    readonly 'cache-miss': number;
    readonly 'cache-miss-rate': number;
    readonly 'encoding-rate': number;
    readonly overflow: number;
  };
  readonly 'total-time'?: number;
  readonly 'expected-downtime'?: number;
  readonly downtime?: number;
  readonly 'setup-time'?: number;
  readonly 'cpu-throttle-percentage'?: number;
  readonly 'error-desc'?: string;
  readonly 'blocked-reasons'?: readonly string[];
  /** Destination: where the source is awaited, with the real port. */
  readonly 'socket-address'?: readonly (
    | { readonly type: 'inet'; readonly host: string; readonly port: string }
    | { readonly type: 'unix'; readonly path: string }
  )[];
  /** A vmferry peer: what the migration waits for now. */
  readonly 'x-waiting-for'?: string;
  /** Two vmferry peers: what they have come to. */
  readonly 'x-handshake'?: {
    readonly settled: readonly {
      readonly name: string;
      readonly value: string;
      readonly source: string;
      readonly destination: string;
    }[];
    readonly warnings: readonly string[];
  };
}

export interface QmpCapability {
  readonly capability: string;
  readonly state: boolean;
}

export interface QmpStatus {
  readonly running: boolean;
  /** RunState. */
  readonly status: string;
}

export interface QmpVersion {
  readonly qemu: { readonly major: number; readonly minor: number; readonly micro: number };
  readonly package: string;
}

export interface QmpMachine {
  readonly name: string;
  readonly alias?: string;
  readonly 'cpu-max': number;
  readonly deprecated?: boolean;
}

export interface QmpMemoryBackend {
  readonly id?: string;
  readonly size: number;
}

export interface QmpPciDevice {
  readonly bus: number;
  readonly slot: number;
  readonly function: number;
  readonly id: { readonly vendor: number; readonly device: number };
  readonly pci_bridge?: { readonly devices?: readonly QmpPciDevice[] };
}

/** Of a vmferry process with the embedded machine (x-query-machine). */
export interface QmpOwnMachine {
  readonly type: string;
  readonly uuid?: string;
  readonly vcpus: number;
  readonly ram: readonly { readonly name: string; readonly size: number; readonly 'page-size': number }[];
  /** Absent in a vmferry that is older than they are, as what follows. */
  readonly 'free-memory'?: number;
  /** ms */
  readonly 'stop-time'?: number;
  readonly 'load-time'?: number;
  readonly handshake?: number;
  readonly given?: readonly string[];
}

/** Of its devices (x-query-devices). */
export interface QmpOwnDevice {
  readonly name: string;
  readonly section: string;
  readonly precopy: boolean;
  readonly p2p: boolean;
  readonly 'initial-data'?: boolean;
  readonly deadlines?: boolean;
  readonly 'state-size'?: number;
}

type None = undefined;
type Empty = Record<string, never>;

/** command -> [arguments (undefined = none), reply]. */
export interface QmpCommands {
  qmp_capabilities: [None | { enable?: readonly string[] }, Empty];
  migrate: [{ uri: string; resume?: boolean }, Empty];
  'migrate-incoming': [{ uri: string; 'exit-on-error'?: boolean }, Empty];
  migrate_cancel: [None, Empty];
  'migrate-continue': [{ state: 'pre-switchover' }, Empty];
  'migrate-start-postcopy': [None, Empty];
  'migrate-pause': [None, Empty];
  'migrate-recover': [{ uri: string }, Empty];
  'migrate-set-capabilities': [{ capabilities: readonly QmpCapability[] }, Empty];
  'query-migrate-capabilities': [None, readonly QmpCapability[]];
  'migrate-set-parameters': [Readonly<Record<string, number | boolean | string>>, Empty];
  'query-migrate-parameters': [None, Readonly<Record<string, unknown>>];
  'query-migrate': [None, QmpMigrationInfo];
  'query-status': [None, QmpStatus];
  /** What could be cut off by force; `type` tells what for. */
  'query-yank': [None, readonly { readonly type: string }[]];
  stop: [None, Empty];
  cont: [None, Empty];
  quit: [None, Empty];
  system_reset: [None, Empty];
  system_wakeup: [None, Empty];
  'query-version': [None, QmpVersion];
  'query-name': [None, { readonly name?: string }];
  'query-uuid': [None, { readonly UUID: string }];
  'query-machines': [None, readonly QmpMachine[]];
  'query-commands': [None, readonly { readonly name: string }[]];
  'query-qmp-schema': [None, readonly unknown[]];
  'query-memory-size-summary': [None, { readonly 'base-memory': number; readonly 'plugged-memory'?: number }];
  'query-cpus-fast': [
    None,
    readonly { readonly 'cpu-index': number; readonly 'thread-id': number; readonly 'qom-path': string }[],
  ];
  'query-kvm': [None, { readonly enabled: boolean; readonly present: boolean }];
  'query-pci': [None, readonly { readonly devices: readonly QmpPciDevice[] }[]];
  'x-query-ramblock': [None, { readonly 'human-readable-text': string }];
  'x-query-machine': [None, QmpOwnMachine];
  'x-query-devices': [None, readonly QmpOwnDevice[]];
  'x-query-compat': [None, readonly { readonly property: string; readonly value: string }[]];
  'query-memdev': [None, readonly QmpMemoryBackend[]];
  'qom-list': [{ path: string }, readonly { readonly name: string; readonly type: string }[]];
  'qom-get': [{ path: string; property: string }, unknown];
  'qom-set': [{ path: string; property: string; value: unknown }, Empty];
  'object-add': [{ 'qom-type': string; id: string; [property: string]: unknown }, Empty];
  'object-del': [{ id: string }, Empty];
  /** `filename` is written by the peer; addresses are guest physical. */
  pmemsave: [{ val: number; size: number; filename: string }, Empty];
  /** The text the human monitor would have printed. */
  'human-monitor-command': [{ 'command-line': string; 'cpu-index'?: number }, string];
  getfd: [{ fdname: string }, Empty];
  closefd: [{ fdname: string }, Empty];
}

export type QmpCommandName = keyof QmpCommands;
export type QmpArguments<C extends QmpCommandName> = QmpCommands[C][0];
export type QmpReply<C extends QmpCommandName> = QmpCommands[C][1];

export interface QmpGreeting {
  readonly version: QmpVersion;
  readonly capabilities: readonly string[];
}

export interface QmpEvent {
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
  /** Microseconds since the epoch, by the peer's clock. */
  readonly timestampUs: number;
}
