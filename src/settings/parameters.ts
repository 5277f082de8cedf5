/**
 * Every MigrationParameter of QEMU 5.2 to 11.1, declared once, in QEMU's order, and vmferry's own behind them. CLI, QMP (values, schema) and docs
 * follow from this table; a test holds it against what real QEMUs report and refuse.
 */
import type { Ends } from './capabilities.ts';

export type ParameterType =
  /** A whole number; `max` of the QAPI type where QEMU has no narrower one. */
  | { readonly kind: 'int'; readonly min: number; readonly max: number; readonly unit?: 'ms' | '%' | 'MB/s' }
  /** A number of bytes (or bytes per second), 0..2^64-1. */
  | {
      readonly kind: 'size';
      readonly unit: 'bytes' | 'bytes/s';
      readonly powerOfTwoFrom?: number;
      readonly max?: number;
    }
  | { readonly kind: 'bool' }
  /** Text; QMP's null means the empty text. */
  | { readonly kind: 'string' }
  | { readonly kind: 'enum'; readonly values: readonly string[] }
  | { readonly kind: 'list' };

export interface ParameterDeclaration {
  readonly type: ParameterType;
  readonly default: number | boolean | string | readonly string[];
  /** First QEMU version that knows it; 'vmferry': none does. */
  readonly since: string;
  /** First QEMU version that no longer knows it. */
  readonly removed?: string;
  /** Whether vmferry takes another value than the default; if not, why not, as the end of a sentence. */
  readonly support: 'yes' | { readonly no: string };
  /** Values of an enumeration that vmferry does not take, and why not. */
  readonly refuses?: Readonly<Record<string, string>>;
  /** A running migration follows changes; other parameters count as they were at its start. */
  readonly live?: true;
  /** Which ends it is for; the source alone if absent. */
  readonly ends?: Ends;
  /** It matters only while one of these capabilities is on. */
  readonly partOf?: readonly string[];
  /** QEMU calls it experimental. */
  readonly unstable?: true;
  /** Reported by query-migrate-parameters only once set. */
  readonly hidden?: true;
  readonly doc: string;
}

const NO_BLOCK = 'vmferry has no block layer';
const OLD_COMPRESSION = 'the compression threads were replaced by multifd compression';

const UINT8 = 0xff;
const UINT32 = 0xffff_ffff;
const UINT64 = 2 ** 64;
const MIB = 1024 * 1024;
/** No bound: QEMU's UINT64_MAX as near as a number comes from below. */
const UINT64_MAX = UINT64 - 2048;

export const PARAMETERS = {
  'announce-initial': {
    type: { kind: 'int', min: 0, max: 100_000, unit: 'ms' },
    default: 50,
    since: '4.0',
    support: 'yes',
    doc: 'Delay before the first network announcement of the destination. vmferry has no network cards: kept, not used.',
  },
  'announce-max': {
    type: { kind: 'int', min: 0, max: 100_000, unit: 'ms' },
    default: 550,
    since: '4.0',
    support: 'yes',
    doc: 'Longest delay between two announcements. Kept, not used.',
  },
  'announce-rounds': {
    type: { kind: 'int', min: 0, max: 1000 },
    default: 5,
    since: '4.0',
    support: 'yes',
    doc: 'Number of announcements. Kept, not used.',
  },
  'announce-step': {
    type: { kind: 'int', min: 1, max: 10_000, unit: 'ms' },
    default: 100,
    since: '4.0',
    support: 'yes',
    doc: 'How much longer each delay is than the one before. Kept, not used.',
  },
  'compress-level': {
    type: { kind: 'int', min: 0, max: 9 },
    default: 1,
    since: '2.4',
    removed: '9.1',
    support: { no: OLD_COMPRESSION },
    doc: 'Level of the compression threads.',
  },
  'compress-threads': {
    type: { kind: 'int', min: 1, max: UINT8 },
    default: 8,
    since: '2.4',
    removed: '9.1',
    support: { no: OLD_COMPRESSION },
    doc: 'Number of compression threads.',
  },
  'compress-wait-thread': {
    type: { kind: 'bool' },
    default: true,
    since: '3.1',
    removed: '9.1',
    support: { no: OLD_COMPRESSION },
    doc: 'Wait for a free compression thread instead of sending the page as it is.',
  },
  'decompress-threads': {
    type: { kind: 'int', min: 1, max: UINT8 },
    default: 2,
    since: '2.4',
    removed: '9.1',
    support: { no: OLD_COMPRESSION },
    doc: 'Number of decompression threads.',
  },
  'throttle-trigger-threshold': {
    type: { kind: 'int', min: 1, max: 100, unit: '%' },
    default: 50,
    since: '5.0',
    support: 'yes',
    live: true,
    doc: 'auto-converge: throttle when the bytes dirtied in a round are more than this share of the bytes sent in it.',
  },
  'cpu-throttle-initial': {
    type: { kind: 'int', min: 1, max: 99, unit: '%' },
    default: 20,
    since: '2.7',
    support: 'yes',
    live: true,
    doc: 'auto-converge: the first throttle.',
  },
  'cpu-throttle-increment': {
    type: { kind: 'int', min: 1, max: 99, unit: '%' },
    default: 10,
    since: '2.7',
    support: 'yes',
    live: true,
    doc: 'auto-converge: by how much the throttle grows at each step.',
  },
  'cpu-throttle-tailslow': {
    type: { kind: 'bool' },
    default: false,
    since: '5.1',
    support: 'yes',
    live: true,
    doc: 'auto-converge: grow by no more than what the dirty rate asks for.',
  },
  'tls-creds': {
    type: { kind: 'string' },
    default: '',
    since: '2.7',
    support: 'yes',
    ends: 'both or none',
    doc: 'Id of the TLS credentials (object-add); empty means clear text.',
  },
  'tls-hostname': {
    type: { kind: 'string' },
    default: '',
    since: '2.7',
    support: 'yes',
    doc: "Name that the destination's certificate must carry; empty means the host of the address.",
  },
  'tls-authz': {
    type: { kind: 'string' },
    default: '',
    since: '4.0',
    support: 'yes',
    ends: 'destination',
    doc: 'Id of the object that says which client may come (authz-simple); empty means each that has a certificate.',
  },
  'max-bandwidth': {
    type: { kind: 'size', unit: 'bytes/s' },
    default: 128 * MIB,
    since: '2.8',
    support: 'yes',
    live: true,
    doc: 'Most bytes per second to send while the guest runs; 0 is no limit.',
  },
  'avail-switchover-bandwidth': {
    type: { kind: 'size', unit: 'bytes/s' },
    default: 0,
    since: '8.2',
    support: 'yes',
    live: true,
    doc: 'Bandwidth to reckon with for the switchover decision; 0 means what was measured.',
  },
  'downtime-limit': {
    type: { kind: 'int', min: 0, max: 2_000_000, unit: 'ms' },
    default: 300,
    since: '2.8',
    support: 'yes',
    live: true,
    doc: 'Longest time the guest may stand still at the switchover.',
  },
  'x-checkpoint-delay': {
    type: { kind: 'int', min: 0, max: UINT32, unit: 'ms' },
    default: 20_000,
    since: '2.8',
    support: { no: 'vmferry does not do continuous replication (COLO)' },
    unstable: true,
    doc: 'COLO: time between two checkpoints.',
  },
  'block-incremental': {
    type: { kind: 'bool' },
    default: false,
    since: '2.10',
    removed: '9.1',
    support: { no: NO_BLOCK },
    doc: 'Block migration: send only the top layer of the disks.',
  },
  'multifd-channels': {
    type: { kind: 'int', min: 1, max: UINT8 },
    default: 2,
    since: '4.0',
    support: 'yes',
    ends: 'same',
    partOf: ['multifd'],
    doc: 'multifd: number of channels. Must be the same on both sides.',
  },
  'xbzrle-cache-size': {
    type: { kind: 'size', unit: 'bytes', powerOfTwoFrom: 4096 },
    default: 64 * MIB,
    since: '2.11',
    support: 'yes',
    live: true,
    doc: 'xbzrle: size of the cache of pages as they were sent.',
  },
  'max-postcopy-bandwidth': {
    type: { kind: 'size', unit: 'bytes/s' },
    default: 0,
    since: '3.0',
    support: 'yes',
    live: true,
    doc: 'Postcopy: most bytes per second of pages nobody asked for; 0 is no limit.',
  },
  'max-cpu-throttle': {
    type: { kind: 'int', min: 1, max: 99, unit: '%' },
    default: 99,
    since: '3.1',
    support: 'yes',
    live: true,
    doc: 'auto-converge: the throttle grows no further; at least cpu-throttle-initial.',
  },
  'multifd-compression': {
    type: { kind: 'enum', values: ['none', 'zlib', 'zstd', 'qatzip', 'qpl', 'uadk'] },
    default: 'none',
    since: '5.0',
    support: 'yes',
    refuses: {
      qatzip: 'vmferry has no QAT hardware',
      qpl: 'vmferry has no IAA hardware',
      uadk: 'vmferry has no UADK hardware',
    },
    ends: 'same',
    partOf: ['multifd'],
    doc: 'multifd: compression of the channels. Must be the same on both sides.',
  },
  'multifd-zlib-level': {
    type: { kind: 'int', min: 0, max: 9 },
    default: 1,
    since: '5.0',
    support: 'yes',
    doc: 'multifd: level of zlib; 0 stores, 9 is smallest.',
  },
  'multifd-qatzip-level': {
    type: { kind: 'int', min: 1, max: 9 },
    default: 1,
    since: '9.2',
    support: { no: 'vmferry has no QAT hardware' },
    doc: 'multifd: level of qatzip.',
  },
  'multifd-zstd-level': {
    type: { kind: 'int', min: 0, max: 20 },
    default: 1,
    since: '5.0',
    support: 'yes',
    doc: 'multifd: level of zstd; 20 is smallest.',
  },
  'block-bitmap-mapping': {
    type: { kind: 'list' },
    default: [],
    since: '5.2',
    support: { no: NO_BLOCK },
    hidden: true,
    doc: 'dirty-bitmaps: names of nodes and bitmaps on the wire.',
  },
  'x-vcpu-dirty-limit-period': {
    type: { kind: 'int', min: 1, max: 1000, unit: 'ms' },
    default: 1000,
    since: '8.1',
    support: { no: 'it needs the dirty ring of KVM' },
    unstable: true,
    doc: 'dirty-limit: time between two looks at the dirty rate.',
  },
  'vcpu-dirty-limit': {
    type: { kind: 'int', min: 1, max: UINT64, unit: 'MB/s' },
    default: 1,
    since: '8.1',
    support: { no: 'it needs the dirty ring of KVM' },
    doc: 'dirty-limit: dirty rate that a vCPU is held to.',
  },
  mode: {
    type: { kind: 'enum', values: ['normal', 'cpr-reboot', 'cpr-transfer', 'cpr-exec'] },
    default: 'normal',
    since: '8.2',
    support: { no: 'vmferry does not update a process in place (CPR)' },
    doc: 'normal, or one of the ways to restart or replace the process on the same host.',
  },
  'zero-page-detection': {
    type: { kind: 'enum', values: ['none', 'legacy', 'multifd'] },
    default: 'multifd',
    since: '9.0',
    support: 'yes',
    doc: 'Who looks for zero pages: nobody, the main thread, or the channels if there are any. With machine types up to 8.2 always the main thread instead of the channels.',
  },
  'direct-io': {
    type: { kind: 'bool' },
    default: false,
    since: '9.1',
    support: 'yes',
    doc: 'mapped-ram, checkpoints: with multifd, write and read pages past the page cache. Fails where the file system cannot do that.',
  },
  'x-rdma-chunk-size': {
    type: { kind: 'size', unit: 'bytes', powerOfTwoFrom: MIB, max: 1024 * MIB },
    default: MIB,
    since: '11.1',
    support: { no: 'vmferry has no RDMA transport' },
    unstable: true,
    ends: 'same',
    partOf: ['rdma-pin-all'],
    doc: 'RDMA: size of a registered chunk.',
  },
  'cpr-exec-command': {
    type: { kind: 'list' },
    default: [],
    since: '10.2',
    support: { no: 'vmferry does not update a process in place (CPR)' },
    doc: 'cpr-exec: command line of the process to become.',
  },
  'x-device-config-load': {
    type: { kind: 'enum', values: ['parallel', 'after-iterables', 'serial'] },
    default: 'parallel',
    since: 'vmferry',
    support: 'yes',
    unstable: true,
    ends: 'destination',
    doc: "VFIO devices, destination: parallel loads each configuration when its device's state is loaded, those that need the machine lock one at a time; after-iterables waits for the state of all devices (QEMU's x-migration-load-config-after-iter); serial is QEMU's way over one channel: nothing goes on beside the stream.",
  },
  'x-migration-max-queued-buffers-size': {
    type: { kind: 'size', unit: 'bytes' },
    default: UINT64_MAX,
    since: 'vmferry',
    support: 'yes',
    unstable: true,
    ends: 'destination',
    doc: "VFIO devices, destination: most bytes of one device's state that wait for it when all devices have work; one buffer of 1 MiB always may. A property of vfio-pci in QEMU, with the same default.",
  },
  'x-switchover-ack-timeout': {
    type: { kind: 'int', min: 0, max: 2_000_000, unit: 'ms' },
    default: 60_000,
    since: 'vmferry',
    support: 'yes',
    live: true,
    unstable: true,
    doc: 'switchover-ack: how long a destination may be silent when nothing else keeps the guest from being stopped. After that the migration fails if the destination is vmferry, and goes on without its word if nobody knows whether it would ever give it.',
  },
  'x-connect-timeout': {
    type: { kind: 'int', min: 1, max: 2_000_000, unit: 'ms' },
    default: 30_000,
    since: 'vmferry',
    support: 'yes',
    live: true,
    unstable: true,
    doc: 'Source: longest wait for a connection to be taken.',
  },
  'x-setup-timeout': {
    type: { kind: 'int', min: 1, max: 2_000_000, unit: 'ms' },
    default: 20_000,
    since: 'vmferry',
    support: 'yes',
    live: true,
    unstable: true,
    doc: 'Source: longest wait for a destination that is connected to read the stream and answer.',
  },
  'x-handshake-timeout': {
    type: { kind: 'int', min: 1, max: 2_000_000, unit: 'ms' },
    default: 10_000,
    since: 'vmferry',
    support: 'yes',
    live: true,
    unstable: true,
    ends: 'offered',
    doc: 'x-vmferry-handshake: longest wait for what the other end says.',
  },
  'x-stall-timeout': {
    type: { kind: 'int', min: 0, max: 2_000_000, unit: 'ms' },
    default: 120_000,
    since: 'vmferry',
    support: 'yes',
    live: true,
    unstable: true,
    doc: 'Source: how long a destination may take none of a piece (at most 512 KiB) that was sent; 0 is no limit.',
  },
  'x-load-timeout': {
    type: { kind: 'int', min: 1, max: 2_000_000, unit: 'ms' },
    default: 120_000,
    since: 'vmferry',
    support: 'yes',
    live: true,
    unstable: true,
    doc: 'Source: longest time for the destination to load the devices, the guest stopped.',
  },
  'x-confirm-timeout': {
    type: { kind: 'int', min: 1, max: 2_000_000, unit: 'ms' },
    default: 120_000,
    since: 'vmferry',
    support: 'yes',
    live: true,
    unstable: true,
    doc: 'Source: longest time for the destination to start the guest and say so.',
  },
  'x-recover-timeout': {
    type: { kind: 'int', min: 1, max: 2_000_000, unit: 'ms' },
    default: 60_000,
    since: 'vmferry',
    support: 'yes',
    live: true,
    unstable: true,
    doc: 'Source, postcopy recovery: longest wait for each answer of the destination.',
  },
  'x-arrival-timeout': {
    type: { kind: 'int', min: 1, max: 2_000_000, unit: 'ms' },
    default: 15_000,
    since: 'vmferry',
    support: 'yes',
    live: true,
    unstable: true,
    ends: 'destination',
    doc: 'Destination: once one connection of the source has come, longest wait for the others (multifd, preempt).',
  },
  'x-silence-timeout': {
    type: { kind: 'int', min: 0, max: 2_000_000, unit: 'ms' },
    default: 0,
    since: 'vmferry',
    support: 'yes',
    live: true,
    unstable: true,
    ends: 'destination',
    doc: 'Destination: longest silence of the source before the end of the stream; 0 is no limit, as a source may pause on purpose and a lost connection ends the wait by itself.',
  },
  'x-description-timeout': {
    type: { kind: 'int', min: 1, max: 2_000_000, unit: 'ms' },
    default: 10_000,
    since: 'vmferry',
    support: 'yes',
    live: true,
    unstable: true,
    ends: 'destination',
    doc: 'Destination: after this silence behind the end of the stream the description counts as suppressed (suppress-vmdesc).',
  },
  'x-closing-timeout': {
    type: { kind: 'int', min: 1, max: 2_000_000, unit: 'ms' },
    default: 5_000,
    since: 'vmferry',
    support: 'yes',
    live: true,
    unstable: true,
    ends: 'offered',
    doc: 'Longest time for last words to leave when all is decided, and for the other end to close after them.',
  },
} as const satisfies Readonly<Record<string, ParameterDeclaration>>;

export type ParameterName = keyof typeof PARAMETERS;

type ValueOfType<T> = T extends { kind: 'int' | 'size' }
  ? number
  : T extends { kind: 'bool' }
    ? boolean
    : T extends { kind: 'string' }
      ? string
      : T extends { kind: 'enum'; values: readonly (infer V)[] }
        ? V
        : readonly string[];

export type ParameterValue<N extends ParameterName> = ValueOfType<(typeof PARAMETERS)[N]['type']>;

export type ParameterValues = { readonly [N in ParameterName]: ParameterValue<N> };

export const PARAMETER_NAMES = Object.keys(PARAMETERS) as readonly ParameterName[];

export function isParameter(name: string): name is ParameterName {
  return Object.hasOwn(PARAMETERS, name);
}

export function parameterDeclaration(name: ParameterName): ParameterDeclaration {
  return PARAMETERS[name];
}

/** What a value of this type must be, as the end of "expects ...". */
export function expectation(type: ParameterType): string {
  switch (type.kind) {
    case 'int':
      return `an integer in the range of ${type.min} to ${exact(type.max)}${type.unit === undefined ? '' : ` ${type.unit}`}`;
    case 'size':
      if (type.powerOfTwoFrom === undefined)
        return `a number of ${type.unit} in the range of 0 to ${exact(type.max ?? UINT64)}`;
      return type.max === undefined
        ? `a power of two no less than ${type.powerOfTwoFrom} bytes`
        : `a power of two in the range of ${type.powerOfTwoFrom} to ${type.max} bytes`;
    case 'bool':
      return 'a boolean';
    case 'string':
      return 'a string or null';
    case 'enum':
      return `one of ${type.values.join(', ')}`;
    case 'list':
      return 'a list';
  }
}

/** The value as this type holds it, or undefined if it is not one. Whole numbers above 2^53 are rounded as JSON readers do. */
export function checkValue(
  type: ParameterType,
  value: unknown,
): number | boolean | string | readonly string[] | undefined {
  switch (type.kind) {
    case 'int':
      return typeof value === 'number' && Number.isInteger(value) && value >= type.min && value <= type.max
        ? value
        : undefined;
    case 'size': {
      if (typeof value !== 'number' || !Number.isInteger(value)) return undefined;
      if (value < (type.powerOfTwoFrom ?? 0) || value > (type.max ?? UINT64)) return undefined;
      return type.powerOfTwoFrom === undefined || Number.isInteger(Math.log2(value)) ? value : undefined;
    }
    case 'bool':
      return typeof value === 'boolean' ? value : undefined;
    case 'string':
      return value === null ? '' : typeof value === 'string' ? value : undefined;
    case 'enum':
      return typeof value === 'string' && type.values.includes(value) ? value : undefined;
    case 'list':
      return Array.isArray(value) ? [...value] : undefined;
  }
}

/** 2^64 stands for the largest unsigned 64-bit number, which a JavaScript number cannot hold. */
function exact(limit: number): string {
  return limit >= UINT64 ? '2^64-1' : String(limit);
}
