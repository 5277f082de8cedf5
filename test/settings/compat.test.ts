import assert from 'node:assert/strict';
import test from 'node:test';
import { FerryError } from '../../src/base/index.ts';
import {
  type CompatProfile,
  compareVersions,
  compatProfile,
  isKnownTo,
  machineVersion,
  parseCompat,
  Settings,
  type SettingsError,
} from '../../src/settings/index.ts';

const MODERN: CompatProfile = {
  preemptPre72: false,
  multifdFlushAfterEachSection: false,
  zeroPageDetection: 'multifd',
  sendSwitchoverStart: true,
  multifdCleanTlsTermination: true,
  vfioMultifdTransfer: true,
  multifdWithPostcopy: true,
  switchoverAckLegacy: false,
};

/** The dialects of qemu-wire 10.2, each as what it differs in from the one after it. */
const ACK = { switchoverAckLegacy: true } as const;
const NO_MIX = { ...ACK, multifdWithPostcopy: false } as const;
const NO_START = {
  ...NO_MIX,
  sendSwitchoverStart: false,
  multifdCleanTlsTermination: false,
  vfioMultifdTransfer: false,
} as const;
const MAIN_ZEROES = { ...NO_START, zeroPageDetection: 'legacy' } as const;
const PER_SECTION = { ...MAIN_ZEROES, multifdFlushAfterEachSection: true } as const;
const EARLY_PREEMPT = { ...PER_SECTION, preemptPre72: true } as const;

const DIALECTS: readonly [machine: string, difference: Partial<CompatProfile>][] = [
  ['pc-i440fx-5.2', EARLY_PREEMPT],
  ['pc-q35-7.2', EARLY_PREEMPT],
  ['workload-7.2', EARLY_PREEMPT],
  ['pc-q35-8.0', PER_SECTION],
  ['pc-q35-8.1', MAIN_ZEROES],
  ['pc-i440fx-8.2', MAIN_ZEROES],
  ['virt-9.0', NO_START],
  ['workload-9.2', NO_START],
  ['pc-q35-10.0', NO_MIX],
  ['pc-q35-10.1', ACK],
  ['pc-q35-11.0', ACK],
  ['pc-q35-11.1', {}],
  ['pc-q35-12.0', {}],
  ['pc-i440fx-2.4', EARLY_PREEMPT],
  ['pc', {}],
  ['q35', {}],
  ['none', {}],
  ['microvm', {}],
  ['pc-q35-rhel9.4.0', {}],
  ['', {}],
];

for (const [machine, difference] of DIALECTS) {
  test(`dialect of machine type '${machine}'`, () => {
    assert.deepEqual(compatProfile(machine), { ...MODERN, ...difference });
  });
}

test('a property set by hand wins', () => {
  assert.equal(compatProfile('pc-q35-7.2', { sendSwitchoverStart: true }).sendSwitchoverStart, true);
});

test('versions are numbers, not text', () => {
  assert.equal(machineVersion('pc-q35-10.0'), '10.0');
  assert.ok(compareVersions('10.0', '9.2') > 0);
  assert.ok(compareVersions('7.2', '7.10') < 0);
  assert.equal(compareVersions('8.1', '8.1'), 0);
  assert.equal(compatProfile('workload-10.0').sendSwitchoverStart, true);
});

test('what a QEMU knew: from its first version on, until it was removed; a nameless machine type knows what the newest does', () => {
  const lifetime = { since: '8.1', removed: '9.1' } as const;
  const known = ['x-8.0', 'x-8.1', 'x-9.0', 'x-9.1', 'x'].map((type) => isKnownTo(type, lifetime));
  assert.deepEqual(known, [false, true, true, false, false]);
  assert.equal(isKnownTo('x', { since: '11.1' }), true);
  assert.equal(isKnownTo('x-5.2', { since: 'vmferry' }), true);
});

test('properties are switched by their names in QEMU, the last word counts', () => {
  assert.deepEqual(parseCompat([]), {});
  assert.deepEqual(
    parseCompat(['send-switchover-start=on', 'zero-page-detection=legacy', 'send-switchover-start=off']),
    { sendSwitchoverStart: false, zeroPageDetection: 'legacy' },
  );
  const code = (text: string) => {
    try {
      parseCompat([text]);
      return 'none';
    } catch (error) {
      return error instanceof FerryError ? error.code : String(error);
    }
  };
  assert.equal(code('send-switchover-start'), 'SETTINGS_BAD_ASSIGNMENT');
  assert.equal(code('=on'), 'SETTINGS_BAD_ASSIGNMENT');
  assert.equal(code('sendSwitchoverStart=on'), 'SETTINGS_UNKNOWN');
  assert.equal(code('send-switchover-start=maybe'), 'SETTINGS_BAD_VALUE');
  assert.equal(code('zero-page-detection=none'), 'SETTINGS_BAD_VALUE');
});

const OLD_REFUSES: readonly [machine: string, change: (settings: Settings) => void, name: string | undefined][] = [
  ['workload-7.2', (s) => s.setCapabilities([{ capability: 'switchover-ack', state: true }]), 'switchover-ack'],
  ['workload-8.0', (s) => s.setCapabilities([{ capability: 'switchover-ack', state: true }]), 'switchover-ack'],
  ['workload-7.2', (s) => s.setCapabilities([{ capability: 'mapped-ram', state: true }]), 'mapped-ram'],
  ['workload-9.0', (s) => s.setCapabilities([{ capability: 'mapped-ram', state: true }]), undefined],
  ['workload-7.2', (s) => s.setCapabilities([{ capability: 'mapped-ram', state: false }]), undefined],
  ['workload-5.2', (s) => s.setCapabilities([{ capability: 'multifd', state: true }]), undefined],
  ['workload-8.1', (s) => s.setParameters({ 'zero-page-detection': 'legacy' }), 'zero-page-detection'],
  ['workload-8.1', (s) => s.setParameters({ 'x-switchover-ack-timeout': 1 }), undefined],
  ['workload', (s) => s.setParameters({ 'zero-page-detection': 'legacy' }), undefined],
];

for (const [machineType, change, name] of OLD_REFUSES) {
  test(`settings of ${machineType}: ${change} ${name ?? 'taken'}`, () => {
    const settings = new Settings({ machineType });
    if (name === undefined) return change(settings);
    const fault = (error: unknown) =>
      error instanceof FerryError &&
      (error as SettingsError).fault.code === 'SETTINGS_UNSUPPORTED' &&
      error.message.includes(name);
    assert.throws(() => change(settings), fault);
    assert.ok(!settings.capabilities().some(({ capability }) => capability === name));
    assert.ok(!(name in settings.parameters()));
  });
}

test('an old machine type shows the settings of its QEMU, as that shows them', () => {
  const names = new Settings({ machineType: 'workload-7.2' }).capabilities().map(({ capability }) => capability);
  assert.ok(names.includes('postcopy-preempt'));
  assert.deepEqual(
    names.filter((name) => ['switchover-ack', 'mapped-ram', 'dirty-limit'].includes(name)),
    [],
  );
});
