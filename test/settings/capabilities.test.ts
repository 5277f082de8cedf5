import assert from 'node:assert/strict';
import test from 'node:test';
import {
  CAPABILITY_NAMES,
  type CapabilityName,
  capabilityDeclaration,
  findCapabilityConflict,
} from '../../src/settings/index.ts';

test('rules name capabilities that exist, and never a capability itself', () => {
  for (const name of CAPABILITY_NAMES) {
    const { requires = [], excludes = [] } = capabilityDeclaration(name);
    for (const other of [...requires, ...excludes]) {
      assert.ok(CAPABILITY_NAMES.includes(other as CapabilityName), `${name} names ${other}`);
      assert.notEqual(other, name);
    }
  }
});

const CASES: readonly [on: readonly CapabilityName[], conflict: string | undefined][] = [
  [[], undefined],
  [['xbzrle', 'return-path', 'auto-converge', 'events'], undefined],
  [['postcopy-ram', 'multifd'], undefined],
  [['postcopy-ram', 'x-ignore-shared'], 'postcopy-ram excludes x-ignore-shared'],
  [['postcopy-preempt'], 'postcopy-preempt requires postcopy-ram'],
  [['postcopy-preempt', 'postcopy-ram'], undefined],
  [['switchover-ack'], 'switchover-ack requires return-path'],
  [['switchover-ack', 'return-path'], undefined],
  [['multifd', 'xbzrle'], 'multifd excludes xbzrle'],
  [['mapped-ram', 'xbzrle'], 'mapped-ram excludes xbzrle'],
  [['mapped-ram', 'postcopy-ram'], 'mapped-ram excludes postcopy-ram'],
  [['mapped-ram', 'return-path', 'x-ignore-shared'], undefined],
  [['dirty-limit', 'auto-converge'], 'dirty-limit excludes auto-converge'],
  [['background-snapshot', 'return-path'], 'background-snapshot excludes return-path'],
  [['zero-copy-send'], 'zero-copy-send requires multifd'],
];

for (const [on, expected] of CASES) {
  test(`capabilities ${on.join(' + ') || '(none)'}: ${expected ?? 'no conflict'}`, () => {
    const found = findCapabilityConflict(new Set(on));
    assert.equal(found && `${found.name} ${found.rule} ${found.other}`, expected);
  });
}
