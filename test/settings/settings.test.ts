import assert from 'node:assert/strict';
import test from 'node:test';
import { FerryError } from '../../src/base/index.ts';
import { type CapabilityName, Settings, type SettingsFault } from '../../src/settings/index.ts';

const MIB = 1024 * 1024;

function on(...names: CapabilityName[]) {
  return names.map((capability) => ({ capability, state: true }));
}

/** The act is refused with this fault, and its message tells the names. */
function refused(act: () => void, fault: Partial<SettingsFault>, message: RegExp): void {
  assert.throws(act, (error) => {
    assert(error instanceof FerryError);
    for (const [fact, value] of Object.entries(fault)) assert.deepEqual(Reflect.get(error.fault, fact), value, fact);
    assert.match(error.message, message);
    return true;
  });
}

test('fresh settings: every capability off, parameters at their defaults', () => {
  const settings = new Settings();
  assert.ok(settings.capabilities().every(({ state }) => !state));
  assert.equal(settings.parameter('max-bandwidth'), 128 * MIB);
  assert.equal(settings.parameter('downtime-limit'), 300);
  assert.equal(settings.parameter('zero-page-detection'), 'multifd');
});

test('capabilities switch on and off; the last state of a name counts', () => {
  const settings = new Settings();
  settings.setCapabilities(on('xbzrle', 'events'));
  assert.equal(settings.capability('xbzrle'), true);
  settings.setCapabilities([...on('xbzrle'), { capability: 'xbzrle', state: false }]);
  assert.equal(settings.capability('xbzrle'), false);
  assert.equal(settings.capability('events'), true);
});

test('only what can be switched on is listed', () => {
  const names = new Settings().capabilities().map(({ capability }) => capability);
  assert.ok(names.includes('mapped-ram'));
  assert.ok(!names.includes('x-colo'));
});

test('an unsupported capability is refused by name, its absence accepted', () => {
  const settings = new Settings();
  refused(
    () => settings.setCapabilities(on('events', 'x-colo')),
    { code: 'SETTINGS_UNSUPPORTED', name: 'x-colo' },
    /'x-colo' is not supported: /,
  );
  assert.equal(settings.capability('events'), false, 'all or nothing');
  settings.setCapabilities([{ capability: 'x-colo', state: false }]);
});

test('a conflict is refused, also with what was on before, and changes nothing', () => {
  const settings = new Settings();
  settings.setCapabilities(on('xbzrle'));
  refused(
    () => settings.setCapabilities(on('events', 'mapped-ram')),
    { code: 'SETTINGS_CONFLICT', name: 'mapped-ram', other: 'xbzrle' },
    /'mapped-ram'.*'xbzrle'/,
  );
  assert.equal(settings.capability('events'), false);
  settings.setCapabilities([{ capability: 'xbzrle', state: false }, ...on('mapped-ram')]);
  assert.equal(settings.capability('mapped-ram'), true);
});

test('while a migration runs capabilities stay, parameters may change', () => {
  const settings = new Settings();
  const unlock = settings.lock();
  const unlockOther = settings.lock();
  refused(() => settings.setCapabilities(on('events')), { code: 'SETTINGS_MIGRATION_RUNNING' }, /in progress/);
  settings.setParameters({ 'max-bandwidth': 1 });
  unlock();
  unlock();
  assert.throws(() => settings.setCapabilities(on('events')), 'unlocking twice does not undo the other lock');
  unlockOther();
  settings.setCapabilities(on('events'));
});

const BAD: readonly [name: string, value: unknown][] = [
  ['max-bandwidth', -1],
  ['max-bandwidth', 1.5],
  ['max-bandwidth', '1G'],
  ['max-bandwidth', 2 ** 65],
  ['downtime-limit', 2_000_001],
  ['cpu-throttle-initial', 0],
  ['cpu-throttle-initial', 100],
  ['max-cpu-throttle', 19],
  ['xbzrle-cache-size', 2048],
  ['xbzrle-cache-size', 5000],
  ['announce-step', 0],
  ['zero-page-detection', 'all'],
  ['cpu-throttle-tailslow', 1],
  ['tls-creds', 3],
];

for (const [name, value] of BAD) {
  test(`parameter ${name} = ${JSON.stringify(value)} is refused, with all that came with it`, () => {
    const settings = new Settings();
    refused(
      () => settings.setParameters({ 'avail-switchover-bandwidth': 7, [name]: value }),
      { code: 'SETTINGS_BAD_VALUE', name },
      new RegExp(`'${name}' expects `),
    );
    assert.deepEqual(settings.parameters(), new Settings().parameters());
  });
}

test('the throttle limits hold each other, in one change and in two', () => {
  const settings = new Settings();
  settings.setParameters({ 'cpu-throttle-initial': 60, 'max-cpu-throttle': 60 });
  assert.throws(() => settings.setParameters({ 'cpu-throttle-initial': 61 }));
  assert.equal(settings.parameter('cpu-throttle-initial'), 60);
});

test('an unsupported parameter takes its default and nothing else', () => {
  const settings = new Settings();
  settings.setParameters({ 'vcpu-dirty-limit': 1, 'cpr-exec-command': [] });
  refused(
    () => settings.setParameters({ 'vcpu-dirty-limit': 2 }),
    { code: 'SETTINGS_UNSUPPORTED', name: 'vcpu-dirty-limit' },
    /not supported/,
  );
});

for (const method of ['qatzip', 'qpl', 'uadk']) {
  test(`multifd-compression ${method} is refused by name: it needs its hardware`, () => {
    const settings = new Settings();
    refused(
      () => settings.setParameters({ 'multifd-compression': method }),
      { code: 'SETTINGS_UNSUPPORTED', name: `multifd-compression=${method}` },
      /not supported: vmferry has no \w+ hardware/,
    );
    assert.equal(settings.parameter('multifd-compression'), 'none');
  });
}

test('mapped-ram and multifd-compression exclude each other, whichever is set first', () => {
  const clash = { code: 'SETTINGS_CONFLICT', name: 'mapped-ram', other: 'multifd-compression' } as const;
  const settings = new Settings();
  settings.setCapabilities([{ capability: 'mapped-ram', state: true }]);
  refused(() => settings.setParameters({ 'multifd-compression': 'zstd' }), clash, /zstd/);
  settings.setCapabilities([{ capability: 'mapped-ram', state: false }]);
  settings.setParameters({ 'multifd-compression': 'zlib' });
  refused(() => settings.setCapabilities([{ capability: 'mapped-ram', state: true }]), clash, /zlib/);
});

test('null empties a text', () => {
  const settings = new Settings();
  settings.setParameters({ 'tls-hostname': null });
  assert.equal(settings.parameter('tls-hostname'), '');
});

test('unlimited, as managers write it: the largest whole MiB below 2^63', () => {
  const settings = new Settings();
  settings.setParameters(JSON.parse('{"max-bandwidth": 9223372036853727232}'));
  assert.equal(settings.parameter('max-bandwidth'), 2 ** 63 - MIB);
});

test('a snapshot keeps capabilities and start values, and follows live parameters', () => {
  const settings = new Settings();
  settings.setCapabilities(on('xbzrle'));
  const snapshot = settings.snapshot();
  settings.setCapabilities([{ capability: 'xbzrle', state: false }]);
  settings.setParameters({ 'max-bandwidth': 5, 'zero-page-detection': 'none' });
  assert.equal(snapshot.capability('xbzrle'), true);
  assert.equal(snapshot.parameter('max-bandwidth'), 5);
  assert.equal(snapshot.parameter('zero-page-detection'), 'multifd');
});

test('what old QEMUs had, and block-bitmap-mapping, is reported only once set', () => {
  const settings = new Settings();
  assert.equal('compress-level' in settings.parameters(), false);
  settings.setParameters({ 'block-bitmap-mapping': [] });
  assert.deepEqual(settings.parameters()['block-bitmap-mapping'], []);
});
