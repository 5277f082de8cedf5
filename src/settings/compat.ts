/**
 * How the machine type decides the dialect. QEMU keeps each machine type speaking as the version it is named for by
 * properties of its `migration` object; this is their table from 5.2 on (qemu-wire 10.1, 10.2). Between 5.2 and 7.2 there is none, so
 * those are one dialect. Nothing else in vmferry asks how old a machine type is.
 */
import { settingsError } from './errors.ts';

interface CompatProperty<Value> {
  /** QEMU's name, settable there with -global OBJECT.NAME=VALUE, here with --compat NAME=VALUE. */
  readonly property: string;
  /** QEMU's object that has it, if that is not `migration`; `vmferry`: QEMU's version decides there, and no property. */
  readonly of?: 'vfio-pci' | 'vmferry';
  /** Machine types up to this version have `old`, later ones and nameless ones `modern`. */
  readonly upTo: string;
  readonly old: Value;
  readonly modern: Value;
  readonly doc: string;
}

const property = <Value>(declaration: CompatProperty<Value>): CompatProperty<Value> => declaration;

export const COMPAT_PROPERTIES = {
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
  vfioMultifdTransfer: property<boolean>({
    property: 'x-migration-multifd-transfer',
    of: 'vfio-pci',
    upTo: '9.2',
    old: false,
    modern: true,
    doc: 'With multifd, the state of VFIO devices goes over the parallel channels; needs send-switchover-start.',
  }),
  multifdWithPostcopy: property<boolean>({
    property: 'x-multifd-with-postcopy',
    of: 'vmferry',
    upTo: '10.0',
    old: false,
    modern: true,
    doc: 'multifd and postcopy-ram together: QEMU does it from 10.1 on.',
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

/** One property switched by hand. */
export type CompatOverrides = Partial<CompatProfile>;

export const COMPAT_NAMES = Object.keys(COMPAT_PROPERTIES) as readonly CompatName[];

/**
 * Each text is NAME=VALUE with QEMU's name of the property; one named twice gets its last value. Throws SETTINGS_BAD_ASSIGNMENT,
 * SETTINGS_UNKNOWN, SETTINGS_BAD_VALUE.
 */
export function parseCompat(texts: readonly string[]): CompatOverrides {
  const overrides: Partial<Record<CompatName, unknown>> = {};
  for (const text of texts) {
    const [, property = '', value = ''] = /^([^=]+)=(.*)$/.exec(text) ?? [];
    if (property === '') {
      throw settingsError({ code: 'SETTINGS_BAD_ASSIGNMENT', text }, `'${text}' is not of the form NAME=VALUE`);
    }
    const name = COMPAT_NAMES.find((one) => COMPAT_PROPERTIES[one].property === property);
    if (name === undefined) {
      throw settingsError({ code: 'SETTINGS_UNKNOWN', name: property }, `There is no compat property '${property}'`);
    }
    overrides[name] = parseProperty(name, value);
  }
  return overrides as CompatOverrides;
}

function parseProperty(name: CompatName, text: string): unknown {
  const { property, old, modern } = COMPAT_PROPERTIES[name];
  const values: readonly unknown[] = [old, modern];
  const found = values.find((value) => text === compatText(value as boolean | string));
  if (found !== undefined) return found;
  const expected = values.map((value) => compatText(value as boolean | string)).join(' or ');
  throw settingsError(
    { code: 'SETTINGS_BAD_VALUE', name: property, value: text, expected },
    `${property}=${text}: ${property} expects ${expected}`,
  );
}

/** As on a command line. */
export function compatText(value: boolean | string): string {
  return value === true ? 'on' : value === false ? 'off' : value;
}

/** Version at the end of a machine type's name, major.minor; compare it with `compareVersions`. */
export type Version = string;

/**
 * Version at the end of a machine type's name: pc-i440fx-7.2, pc-q35-10.0, workload-9.0, virt-8.1. undefined for names
 * without one (pc, q35, none, microvm) and for distributions' own (pc-q35-rhel9.4.0), whose number is not QEMU's.
 */
export function machineVersion(machineType: string): Version | undefined {
  return /^(?:[a-z][a-z0-9]*-)+(\d{1,3}\.\d{1,3})$/.exec(machineType)?.[1];
}

/** Below 0 if `a` is older. Both are major.minor. */
export function compareVersions(a: Version, b: Version): number {
  const [major = 0, minor = 0] = a.split('.').map(Number);
  const [otherMajor = 0, otherMinor = 0] = b.split('.').map(Number);
  return major - otherMajor || minor - otherMinor;
}

export function isVersionBefore(a: Version, b: Version): boolean {
  return compareVersions(a, b) < 0;
}

/** Dialect of a machine type; the newest if the name has no version. `overrides` are set by hand, as -global does. */
export function compatProfile(machineType: string, overrides: CompatOverrides = {}): CompatProfile {
  const version = machineVersion(machineType);
  const derived = Object.entries(COMPAT_PROPERTIES).map(([name, { upTo, old, modern }]) => [
    name,
    version !== undefined && compareVersions(version, upTo) <= 0 ? old : modern,
  ]);
  return { ...Object.fromEntries(derived), ...overrides } as CompatProfile;
}

/** When QEMU had a setting; `vmferry`: never, it is ours. */
export interface Lifetime {
  readonly since: Version | 'vmferry';
  readonly removed?: Version;
}

/** Whether the QEMU that a machine type is named for knows a setting. Our own are known to all; a nameless type knows what the newest does. */
export function isKnownTo(machineType: string, { since, removed }: Lifetime): boolean {
  if (since === 'vmferry') return true;
  const version = machineVersion(machineType);
  if (version === undefined) return removed === undefined;
  return !isVersionBefore(version, since) && (removed === undefined || isVersionBefore(version, removed));
}
