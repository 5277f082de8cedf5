import assert from 'node:assert/strict';
import test from 'node:test';
import { type CompatProfile, compatProfile, machineVersion } from '../../src/settings/index.ts';

const MODERN: CompatProfile = {
  sendConfiguration: true,
  sendSectionFooter: true,
  storeGlobalState: true,
  preemptPre72: false,
  multifdFlushAfterEachSection: false,
  zeroPageDetection: 'multifd',
  sendSwitchoverStart: true,
  multifdCleanTlsTermination: true,
  switchoverAckLegacy: false,
};

/** The dialects of qemu-wire 10.2, each as what it differs in from the one after it. */
const ACK = { switchoverAckLegacy: true } as const;
const NO_START = { ...ACK, sendSwitchoverStart: false, multifdCleanTlsTermination: false } as const;
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
  ['pc-q35-10.0', ACK],
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

test('the last property to change is that of 2.3', () => {
  assert.deepEqual(compatProfile('pc-i440fx-2.3'), {
    ...MODERN,
    ...EARLY_PREEMPT,
    sendConfiguration: false,
    sendSectionFooter: false,
    storeGlobalState: false,
  });
});

test('a property set by hand wins', () => {
  assert.equal(compatProfile('pc-q35-7.2', { sendSwitchoverStart: true }).sendSwitchoverStart, true);
});

test('versions are numbers, not text', () => {
  assert.deepEqual(machineVersion('pc-q35-10.0'), { major: 10, minor: 0 });
  assert.equal(compatProfile('workload-10.0').sendSwitchoverStart, true);
});
