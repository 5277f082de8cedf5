/**
 * Every MigrationParameter of QEMU 5.2 to 11.1, declared once, in QEMU's order, and vmferry's own behind them. CLI, QMP (values, schema) and docs
 * follow from this table; a test holds it against what real QEMUs report and refuse.
 */
import { OWN_PARAMETERS } from './own-parameters.ts';
import { type ParameterDeclaration, UINT64 } from './parameter-type.ts';

const NO_BLOCK = 'vmferry has no block layer';
const OLD_COMPRESSION = 'the compression threads were replaced by multifd compression';

const UINT8 = 0xff;
const UINT32 = 0xffff_ffff;
const MIB = 1024 * 1024;

const QEMU_PARAMETERS = {
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
    settle: { rule: 'least', unasked: 16 },
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
    settle: { rule: 'common' },
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
} as const satisfies Readonly<Record<string, ParameterDeclaration>>;

export const PARAMETERS = { ...QEMU_PARAMETERS, ...OWN_PARAMETERS };

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

/**
 * Of a parameter that two ends can settle (`settle`): what an end whose own value is `value` takes if the other was given it - the largest number, or
 * all values. Undefined: it cannot be settled.
 */
export function valuesTaken<N extends ParameterName>(
  name: N,
  value: ParameterValue<N>,
): number | readonly string[] | undefined {
  const { settle, type, refuses = {} } = parameterDeclaration(name);
  if (settle === undefined) return undefined;
  if (settle.rule === 'least') return Math.max(settle.unasked, Number(value));
  return type.kind === 'enum' ? type.values.filter((one) => refuses[one] === undefined) : undefined;
}
