/**
 * How the machine type decides the dialect. QEMU keeps each machine type speaking as the version it is named for by
 * properties of its `migration` object; this is their table (qemu-wire 10.1, 10.2). Between 5.2 and 7.2 there is none, so
 * those are one dialect.
 */
interface CompatProperty<Value> {
  /** QEMU's property, settable there with -global migration.NAME=VALUE. */
  readonly property: string;
  /** Machine types up to this version have `old`, later ones and nameless ones `modern`. */
  readonly upTo: string;
  readonly old: Value;
  readonly modern: Value;
  readonly doc: string;
}

const property = <Value>(declaration: CompatProperty<Value>): CompatProperty<Value> => declaration;

export const COMPAT_PROPERTIES = {
  sendConfiguration: property<boolean>({
    property: 'send-configuration',
    upTo: '2.3',
    old: false,
    modern: true,
    doc: 'The stream begins with a configuration section.',
  }),
  sendSectionFooter: property<boolean>({
    property: 'send-section-footer',
    upTo: '2.3',
    old: false,
    modern: true,
    doc: 'Every section ends with a footer.',
  }),
  storeGlobalState: property<boolean>({
    property: 'store-global-state',
    upTo: '2.3',
    old: false,
    modern: true,
    doc: 'The run state is sent in a section globalstate.',
  }),
  preemptPre72: property<boolean>({
    property: 'x-preempt-pre-7-2',
    upTo: '7.2',
    old: true,
    modern: false,
    doc: 'The preempt channel is opened with the main channel and ends with an EOS record.',
  }),
  multifdFlushAfterEachSection: property<boolean>({
    property: 'multifd-flush-after-each-section',
    upTo: '8.0',
    old: true,
    modern: false,
    doc: 'The multifd channels are synchronised after every section instead of after every round.',
  }),
  zeroPageDetection: property<'none' | 'legacy' | 'multifd'>({
    property: 'zero-page-detection',
    upTo: '8.2',
    old: 'legacy',
    modern: 'multifd',
    doc: 'Default of the parameter zero-page-detection: with multifd, zero pages go over the main channel, or in packets.',
  }),
  sendSwitchoverStart: property<boolean>({
    property: 'send-switchover-start',
    upTo: '9.2',
    old: false,
    modern: true,
    doc: 'Command SWITCHOVER_START is sent when the guest has stopped.',
  }),
  multifdCleanTlsTermination: property<boolean>({
    property: 'multifd-clean-tls-termination',
    upTo: '9.2',
    old: false,
    modern: true,
    doc: 'The peer ends the TLS sessions of its multifd channels; otherwise a cut at the end is no error.',
  }),
  switchoverAckLegacy: property<boolean>({
    property: 'switchover-ack-legacy',
    upTo: '11.0',
    old: true,
    modern: false,
    doc: 'switchover-ack: one ACK counted by the destination, instead of one per device counted by the source.',
  }),
} as const;

type Properties = typeof COMPAT_PROPERTIES;

export type CompatName = keyof Properties;

export type CompatProfile = { readonly [N in CompatName]: Properties[N]['modern'] };

/** A machine type's version; compare as numbers. */
export interface MachineVersion {
  readonly major: number;
  readonly minor: number;
}

/**
 * Version at the end of a machine type's name: pc-i440fx-7.2, pc-q35-10.0, workload-9.0, virt-8.1. undefined for names
 * without one (pc, q35, none, microvm) and for distributions' own (pc-q35-rhel9.4.0), whose number is not QEMU's.
 */
export function machineVersion(machineType: string): MachineVersion | undefined {
  const match = /^(?:[a-z][a-z0-9]*-)+(\d{1,3})\.(\d{1,3})$/.exec(machineType);
  return match === null ? undefined : { major: Number(match[1]), minor: Number(match[2]) };
}

/** Below 0 if the machine type is older than `version`; one without a version is the newest. */
export function compareMachineVersion(machineType: string, version: string): number {
  const found = machineVersion(machineType);
  if (found === undefined) return 1;
  const [major = 0, minor = 0] = version.split('.').map(Number);
  return found.major - major || found.minor - minor;
}

/** Of two QEMU versions, major.minor. */
export function isVersionBefore(a: string, b: string): boolean {
  const [major = 0, minor = 0] = a.split('.').map(Number);
  const [otherMajor = 0, otherMinor = 0] = b.split('.').map(Number);
  return (major - otherMajor || minor - otherMinor) < 0;
}

/** Dialect of a machine type; the newest if the name has no version. `overrides` are set by hand, as -global does. */
export function compatProfile(machineType: string, overrides: Partial<CompatProfile> = {}): CompatProfile {
  const version = machineVersion(machineType);
  const derived = Object.entries(COMPAT_PROPERTIES).map(([name, { upTo, old, modern }]) => [
    name,
    version !== undefined && isAtMost(version, upTo) ? old : modern,
  ]);
  return { ...Object.fromEntries(derived), ...overrides } as CompatProfile;
}

function isAtMost(version: MachineVersion, limit: string): boolean {
  const [major = 0, minor = 0] = limit.split('.').map(Number);
  return version.major < major || (version.major === major && version.minor <= minor);
}
