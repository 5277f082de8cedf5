import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { FerryError } from '../../src/base/index.ts';
import { parseAssignments, parseSize } from '../../src/settings/index.ts';

const GOOD: readonly [text: string, value: unknown][] = [
  ['max-bandwidth=1G', 2 ** 30],
  ['max-bandwidth=1GiB/s', 2 ** 30],
  ['max-bandwidth=0', 0],
  ['xbzrle-cache-size=512k', 512 * 1024],
  ['downtime-limit=300', 300],
  ['downtime-limit=300ms', 300],
  ['downtime-limit=1.5s', 1500],
  ['cpu-throttle-tailslow=yes', true],
  ['multifd-compression=zstd', 'zstd'],
  ['tls-hostname=a=b', 'a=b'],
  ['tls-hostname=', ''],
  ['cpr-exec-command=/bin/vm,-S', ['/bin/vm', '-S']],
  ['compress-level=9', 9],
];

for (const [text, value] of GOOD) {
  test(`--set ${text}`, () => {
    assert.deepEqual(Object.values(parseAssignments([text]).parameters), [value]);
  });
}

test('capabilities and parameters are told apart; supported or not', () => {
  assert.deepEqual(parseAssignments(['x-colo=on', 'max-cpu-throttle=50', 'events=off']), {
    capabilities: [
      { capability: 'x-colo', state: true },
      { capability: 'events', state: false },
    ],
    parameters: { 'max-cpu-throttle': 50 },
  });
});

const BAD: readonly [text: string, code: string][] = [
  ['xbzrle', 'SETTINGS_BAD_ASSIGNMENT'],
  ['=on', 'SETTINGS_BAD_ASSIGNMENT'],
  ['xbzrle=maybe', 'SETTINGS_BAD_VALUE'],
  ['teleport=on', 'SETTINGS_UNKNOWN'],
  ['toString=on', 'SETTINGS_UNKNOWN'],
  ['max-bandwidth=fast', 'SETTINGS_BAD_VALUE'],
  ['max-bandwidth=-1', 'SETTINGS_BAD_VALUE'],
  ['max-bandwidth=0.3', 'SETTINGS_BAD_VALUE'],
  ['downtime-limit=1G', 'SETTINGS_BAD_VALUE'],
  ['multifd-channels=256', 'SETTINGS_BAD_VALUE'],
  ['mode=', 'SETTINGS_BAD_VALUE'],
];

for (const [text, code] of BAD) {
  test(`--set ${text} is refused: ${code}`, () => {
    assert.throws(
      () => parseAssignments([text]),
      (error) => {
        assert(error instanceof FerryError);
        assert.equal(error.code, code);
        assert.ok(error.message.includes(text.split('=')[0]!), error.message);
        return true;
      },
    );
  });
}

test('a size is its number times its unit, in every spelling', () => {
  const units = { '': 0, B: 0, K: 1, k: 1, KiB: 1, MB: 2, G: 3, T: 4 };
  fc.assert(
    fc.property(fc.nat(1_000_000), fc.constantFrom(...Object.entries(units)), (count, [unit, power]) => {
      assert.equal(parseSize(`${count}${unit}`), count * 1024 ** power);
    }),
    { seed: 20, numRuns: 200 },
  );
});
