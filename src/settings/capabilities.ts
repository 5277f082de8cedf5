/**
 * Every MigrationCapability of QEMU 5.2 to 11.1, declared once, in QEMU's order. All are off by default. CLI, QMP
 * (values, schema) and docs follow from this table; a test holds it against the lists of real QEMUs.
 */
export interface CapabilityDeclaration {
  /** First QEMU version that knows it. */
  readonly since: string;
  /** First QEMU version that no longer knows it. */
  readonly removed?: string;
  /** Whether vmferry can switch it on; if not, why not, as the end of a sentence. */
  readonly support: 'yes' | { readonly no: string };
  /** Capabilities that must be on with it. */
  readonly requires?: readonly string[];
  /** Capabilities that must be off with it. */
  readonly excludes?: readonly string[];
  /** Which ends it is for; the source alone if absent. */
  readonly ends?: Ends;
  /** How two vmferry ends of which only one has it on come together (handshake). Absent: they do not, if `ends` says that they must agree. */
  readonly settle?: SettleCapability;
  /** QEMU calls it experimental. */
  readonly unstable?: true;
  readonly doc: string;
}

/**
 * Who reads a setting that is not the source's alone (qemu-wire 10.3, 10.4), and what must hold between two ends:
 *
 * - `destination`: only the destination reads it.
 * - `same`: it must be the same at both.
 * - `implied`: what the source has on, the destination must have on; on at the destination alone it does nothing.
 * - `offered`: the source decides; the destination may have it on or off.
 * - `both or none`: it has a value at both or at neither, but each its own.
 * - `at most`: a number that each has its own of; two ends that shake hands use the smaller one, with anybody else it is the least there is.
 */
export type Ends = 'destination' | 'same' | 'implied' | 'offered' | 'both or none' | 'at most';

/**
 * What an end was given counts more than a default: if only one of two ends was told, the other follows as far as it can. If it cannot, or was told
 * otherwise:
 *
 * - `both`: it is off; what is promised of the migration stays the same.
 * - `follow`: nothing less would be what was asked for, so the migration is refused.
 */
export type SettleCapability = 'both' | 'follow';

const NOT_YET = 'vmferry does not implement it yet';

export const CAPABILITIES = {
  xbzrle: {
    since: '1.2',
    support: 'yes',
    doc: 'Send a page that was sent before as the difference to its last version, while it is in the cache.',
  },
  'rdma-pin-all': {
    since: '2.0',
    support: { no: 'vmferry has no RDMA transport' },
    ends: 'same',
    doc: 'RDMA: pin all memory at once.',
  },
  'auto-converge': {
    since: '1.6',
    support: 'yes',
    doc: 'Throttle the vCPUs step by step when they dirty memory faster than it can be sent.',
  },
  'zero-blocks': {
    since: '1.6',
    removed: '11.0',
    support: { no: 'it belongs to block migration, which vmferry does not do' },
    doc: 'Block migration: send blocks of zeroes as a mark.',
  },
  compress: {
    since: '2.4',
    removed: '9.1',
    support: { no: 'the compression threads were replaced by multifd compression' },
    excludes: ['xbzrle', 'multifd', 'postcopy-preempt'],
    ends: 'same',
    doc: 'Compress pages one by one on the main channel, in threads.',
  },
  events: { since: '2.4', support: 'yes', doc: 'Emit MIGRATION and MIGRATION_PASS events.' },
  'postcopy-ram': {
    since: '2.6',
    support: 'yes',
    excludes: ['x-ignore-shared'],
    ends: 'implied',
    settle: 'follow',
    doc: 'Let the guest run on the destination before all of its memory is there.',
  },
  'x-colo': {
    since: '2.8',
    support: { no: 'vmferry does not do continuous replication (COLO)' },
    requires: ['return-path'],
    unstable: true,
    ends: 'same',
    doc: 'Never end the migration; keep the destination in step as a stand-by.',
  },
  'release-ram': {
    since: '2.9',
    support: { no: NOT_YET },
    doc: 'Postcopy: free pages on the source once they are sent. Rules out recovery.',
  },
  block: {
    since: '2.11',
    removed: '9.1',
    support: { no: 'vmferry moves memory and device state, not disks' },
    ends: 'same',
    doc: 'Send the disks with the machine.',
  },
  'return-path': {
    since: '2.10',
    support: 'yes',
    ends: 'offered',
    doc: 'Precopy: the source completes only when the destination has said that all is loaded.',
  },
  'pause-before-switchover': {
    since: '2.11',
    support: 'yes',
    doc: 'Wait in pre-switchover, guest stopped, until migrate-continue.',
  },
  multifd: {
    since: '4.0',
    support: 'yes',
    excludes: ['xbzrle'],
    ends: 'same',
    settle: 'both',
    doc: 'Send memory over several parallel channels.',
  },
  'dirty-bitmaps': {
    since: '2.12',
    support: { no: 'vmferry has no block layer whose bitmaps could move' },
    ends: 'implied',
    doc: 'Migrate the dirty bitmaps of block nodes.',
  },
  'postcopy-blocktime': {
    since: '3.0',
    support: 'yes',
    ends: 'destination',
    doc: 'Postcopy: measure how long vCPUs wait for pages.',
  },
  'late-block-activate': {
    since: '3.0',
    support: 'yes',
    ends: 'destination',
    doc: 'Destination: take the disks only when the guest starts. Accepted; vmferry holds no disks, so nothing changes.',
  },
  'x-ignore-shared': {
    since: '4.0',
    support: 'yes',
    unstable: true,
    ends: 'same',
    doc: 'Leave out memory that both sides share. Must be the same on both sides.',
  },
  'validate-uuid': {
    since: '4.2',
    support: 'yes',
    doc: "Send the machine's UUID; the destination refuses another machine's.",
  },
  'background-snapshot': {
    since: '6.0',
    support: { no: 'it needs write protection of guest memory by the kernel' },
    excludes: [
      'postcopy-ram',
      'dirty-bitmaps',
      'postcopy-blocktime',
      'late-block-activate',
      'return-path',
      'multifd',
      'pause-before-switchover',
      'auto-converge',
      'release-ram',
      'rdma-pin-all',
      'xbzrle',
      'x-colo',
      'validate-uuid',
      'zero-copy-send',
    ],
    doc: 'The stream shows the machine as it was when the migration began, while it runs on.',
  },
  'zero-copy-send': {
    since: '7.1',
    support: { no: 'Node.js offers no zero-copy send' },
    requires: ['multifd'],
    excludes: ['xbzrle'],
    doc: 'Multifd: let the kernel send guest pages without copying them.',
  },
  'postcopy-preempt': {
    since: '7.1',
    support: 'yes',
    requires: ['postcopy-ram'],
    ends: 'same',
    settle: 'both',
    doc: 'Postcopy: requested pages travel on a channel of their own.',
  },
  'switchover-ack': {
    since: '8.1',
    support: 'yes',
    requires: ['return-path'],
    ends: 'same',
    settle: 'both',
    doc: 'Do not stop the guest before the destination says that devices are ready for it.',
  },
  'dirty-limit': {
    since: '8.1',
    support: { no: 'it needs the dirty ring of KVM' },
    excludes: ['auto-converge'],
    doc: 'Throttle each vCPU to a given dirty rate.',
  },
  'mapped-ram': {
    since: '9.0',
    support: 'yes',
    excludes: ['xbzrle', 'postcopy-ram'],
    ends: 'same',
    doc: 'Files: every page has its fixed place in the file. Must be the same when loading.',
  },
  'x-vmferry-handshake': {
    since: 'vmferry',
    support: 'yes',
    unstable: true,
    ends: 'same',
    doc: 'Between two vmferry ends: before anything else each tells the other what it has, what is set and what loading costs; differences are settled where that can be, all others are refused at once.',
  },
} as const satisfies Readonly<Record<string, CapabilityDeclaration>>;

export type CapabilityName = keyof typeof CAPABILITIES;

/** A capability and whether it is on: MigrationCapabilityStatus of QMP. */
export interface CapabilityStatus {
  readonly capability: CapabilityName;
  readonly state: boolean;
}

export const CAPABILITY_NAMES = Object.keys(CAPABILITIES) as readonly CapabilityName[];

export function isCapability(name: string): name is CapabilityName {
  return Object.hasOwn(CAPABILITIES, name);
}

export function capabilityDeclaration(name: CapabilityName): CapabilityDeclaration {
  return CAPABILITIES[name];
}

export interface CapabilityConflict {
  readonly name: CapabilityName;
  readonly other: CapabilityName;
  readonly rule: 'requires' | 'excludes';
}

/**
 * The first rule that a set of switched-on capabilities breaks, in the order of declaration. The rules are those of the
 * newest QEMU (postcopy-ram with multifd, which 8.2 to 10.0 refuse, is a matter of the peer and not of this table).
 */
export function findCapabilityConflict(on: ReadonlySet<CapabilityName>): CapabilityConflict | undefined {
  for (const name of CAPABILITY_NAMES) {
    if (!on.has(name)) continue;
    const { requires = [], excludes = [] } = capabilityDeclaration(name);
    const missing = requires.find((other) => !on.has(other as CapabilityName));
    if (missing !== undefined) return { name, other: missing as CapabilityName, rule: 'requires' };
    const clashing = excludes.find((other) => on.has(other as CapabilityName));
    if (clashing !== undefined) return { name, other: clashing as CapabilityName, rule: 'excludes' };
  }
  return undefined;
}
