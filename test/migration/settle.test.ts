/** How ends that differ come together: what was given counts more than a default, what cannot be had at both is left out, what cannot be left out is refused. */
import assert from 'node:assert/strict';
import test, { after, type TestContext } from 'node:test';
import fc from 'fast-check';
import { explain } from '../../src/base/index.ts';
import { createWorkload } from '../../src/machine/index.ts';
import { impossible, settingFacts } from '../../src/migration/handshake/own-facts.ts';
import {
  acceptSettled,
  compareEnds,
  type EndFacts,
  IncomingMigration,
  OutgoingMigration,
  type Settlement,
  settle,
  withSettled,
} from '../../src/migration/index.ts';
import {
  CAPABILITY_NAMES,
  type CapabilityName,
  COMPAT_NAMES,
  COMPAT_PROPERTIES,
  capabilityDeclaration,
  compatText,
  findCapabilityConflict,
  PARAMETER_NAMES,
  parameterDeclaration,
  parseAssignments,
  Settings,
} from '../../src/settings/index.ts';
import { connect, listen } from '../../src/transport/index.ts';
import { testSettings } from '../support/move.ts';
import { moveOver } from '../support/move-over.ts';
import { TlsFolders } from '../support/tls-folders.ts';

const MIB = 1024 * 1024;

const folders = new TlsFolders();
after(() => folders.close());

/** `a=on b=3`; nothing else is given. */
function settingsOf(text: string, machineType?: string): Settings {
  const settings = new Settings({ machineType });
  const { capabilities, parameters } = parseAssignments(text.split(' ').filter((one) => one !== ''));
  settings.setCapabilities(capabilities);
  settings.setParameters(parameters);
  return settings;
}

interface End {
  /** Settings that it was given. */
  readonly given?: string;
  /** Restricts it to what the QEMU of that version knew. */
  readonly machineType?: string;
  readonly cannot?: ReadonlySet<CapabilityName>;
  readonly handshake?: number;
}

function factsOf({ given = '', machineType, cannot = new Set(), handshake }: End): EndFacts {
  const facts = settingFacts(settingsOf(given, machineType), cannot);
  return handshake === undefined ? facts : { ...facts, handshake };
}

const ONE_CONNECTION = impossible({ moreConnections: false, multifd: true, postcopy: true });
const WHOLE_RAM = impossible({ moreConnections: true, multifd: true, postcopy: false });
const ACK = 'return-path=on switchover-ack=on';
const FOUR = 'multifd=on multifd-channels=4';
const PREEMPT = 'postcopy-ram=on postcopy-preempt=on';

/** `settled`: name=value of each; `refused`: what the rules say of what is left. */
const CASES: readonly [name: string, source: End, destination: End, settled: string, refused?: RegExp][] = [
  ['nothing differs', { given: FOUR }, { given: FOUR }, ''],
  ['what is the source alone is no matter', { given: 'xbzrle=on downtime-limit=1' }, {}, ''],
  ['the destination follows', { given: 'multifd=on' }, {}, 'multifd=on'],
  ['the source follows', {}, { given: 'multifd=on' }, 'multifd=on'],
  ['with its channels', { given: FOUR }, {}, 'multifd=on multifd-channels=4'],
  [
    'those of the source, though multifd is given at the destination',
    { given: 'multifd-channels=5' },
    { given: 'multifd=on' },
    'multifd=on multifd-channels=5',
  ],
  ['no more than it takes unasked', { given: 'multifd=on multifd-channels=200' }, {}, 'multifd=on multifd-channels=16'],
  [
    'the smaller of two that are given',
    { given: FOUR },
    { given: 'multifd=on multifd-channels=3' },
    'multifd-channels=3',
  ],
  ['channels do not matter without multifd', { given: 'multifd-channels=4' }, { given: 'multifd-channels=3' }, ''],
  ['given on and given off', { given: FOUR }, { given: 'multifd=off' }, 'multifd=off'],
  ['there is one connection', { given: FOUR }, { cannot: ONE_CONNECTION }, 'multifd=off'],
  ['what is on here does not go with it', { given: 'xbzrle=on' }, { given: 'multifd=on' }, 'multifd=off'],
  [
    'the method that is given',
    { given: 'multifd=on multifd-compression=zlib' },
    { given: 'multifd=on' },
    'multifd-compression=zlib',
  ],
  [
    'at the destination',
    { given: 'multifd=on' },
    { given: 'multifd=on multifd-compression=zstd' },
    'multifd-compression=zstd',
  ],
  [
    'of two methods the source has its way: it compresses',
    { given: 'multifd=on multifd-compression=zlib' },
    { given: 'multifd=on multifd-compression=zstd' },
    'multifd-compression=zlib',
  ],
  ['the destination follows to switchover-ack', { given: ACK }, {}, 'switchover-ack=on'],
  ['the source follows, as its sockets have a return path', {}, { given: ACK }, 'switchover-ack=on'],
  ['a destination that is older than switchover-ack', { given: ACK }, { machineType: 'pc-8.0' }, 'switchover-ack=off'],
  ['a source that is', { machineType: 'pc-8.0' }, { given: ACK }, 'switchover-ack=off'],
  ['the destination follows to postcopy', { given: 'postcopy-ram=on' }, {}, 'postcopy-ram=on'],
  [
    'and to its preempt channel',
    { given: 'postcopy-ram=on postcopy-preempt=on' },
    {},
    'postcopy-ram=on postcopy-preempt=on',
  ],
  [
    'which it leaves out if there is one connection',
    { given: 'postcopy-ram=on postcopy-preempt=on' },
    { cannot: ONE_CONNECTION },
    'postcopy-ram=on postcopy-preempt=off',
  ],
  [
    'as many preempt channels as only one was given',
    { given: `${PREEMPT} x-postcopy-preempt-channels=4` },
    { given: PREEMPT },
    'x-postcopy-preempt-channels=4',
  ],
  [
    'the smaller number of two',
    { given: `${PREEMPT} x-postcopy-preempt-channels=4` },
    { given: `${PREEMPT} x-postcopy-preempt-channels=3` },
    'x-postcopy-preempt-channels=3',
  ],
  ['postcopy at the destination alone does nothing', {}, { given: 'postcopy-ram=on' }, ''],
  ['nor does its preempt channel', {}, { given: 'postcopy-ram=on postcopy-preempt=on' }, 'postcopy-preempt=off'],
  [
    'the source follows to a preempt channel',
    { given: 'postcopy-ram=on' },
    { given: 'postcopy-ram=on postcopy-preempt=on' },
    'postcopy-preempt=on',
  ],
  [
    'nothing less is a postcopy: given off',
    { given: 'postcopy-ram=on' },
    { given: 'postcopy-ram=off' },
    '',
    /postcopy-ram is on at the source only/,
  ],
  ['or impossible', { given: 'postcopy-ram=on' }, { cannot: WHOLE_RAM }, '', /the destination does not know it/],
  [
    'whether memory is shared nobody can settle',
    { given: 'x-ignore-shared=on' },
    {},
    '',
    /x-ignore-shared is on at the source only/,
  ],
  ['nor what TLS was for', { given: 'tls-creds=tls0' }, {}, '', /tls-creds is tls0 at the source, not set/],
  [
    'who insists has it, if the other can',
    { given: `${FOUR} x-handshake-insist=on` },
    {},
    'multifd=on multifd-channels=4',
  ],
  [
    'or refuses',
    { given: `${FOUR} x-handshake-insist=on` },
    { given: 'multifd=on multifd-channels=3' },
    'multifd-channels=3',
    /multifd-channels is 4 .*3 at the destination: the source insists/,
  ],
  [
    'at the destination too',
    { given: ACK },
    { given: 'switchover-ack=off x-handshake-insist=on' },
    'switchover-ack=off',
  ],
  [
    'on what is impossible',
    { cannot: ONE_CONNECTION },
    { given: `${FOUR} x-handshake-insist=on` },
    'multifd=off',
    /multifd is off at the source, on at the destination: the destination insists/,
  ],
  ['an end that settles nothing yet', { given: FOUR }, { handshake: 1 }, '', /multifd is on at the source only/],
  ['at the source', { handshake: 1 }, { given: FOUR }, '', /multifd is on at the destination only/],
  ['one of a version to come', { given: FOUR }, { handshake: 77 }, 'multifd=on multifd-channels=4'],
];

const SETTING_RULES = ['settled', 'capabilities', 'parameters'];

const textOf = (settled: readonly Settlement[]) =>
  settled.map(({ name, value }) => `${name}=${value === true ? 'on' : value === false ? 'off' : value}`).join(' ');

for (const [name, source, destination, expected, refused] of CASES) {
  test(`${name}: ${source.given ?? '-'} | ${destination.given ?? '-'}`, () => {
    const [here, there] = [factsOf(source), factsOf(destination)];
    const settled = settle(here, there);
    assert.equal(textOf(settled), expected);
    const told = Object.fromEntries(settled.map(({ name, value }) => [name, value]));
    assert.deepEqual(acceptSettled(here, there, told), { settled, refused: [] });
    const findings = compareEnds(here, there).filter(({ rule }) => SETTING_RULES.includes(rule));
    const failed = findings.filter(({ verdict }) => verdict === 'fail').map(({ reason }) => reason);
    if (refused === undefined) assert.deepEqual(failed, []);
    else assert.match(failed.join('\n'), refused);
    const warned = findings.filter(({ rule, verdict }) => rule === 'settled' && verdict === 'warn');
    if (refused === undefined) assert.equal(warned.length, settled.length);
  });
}

const DIALECTS: readonly [name: string, source: Record<string, string>, destination: Record<string, string>, string][] =
  [
    ['the same', { 'switchover-ack-legacy': 'on' }, { 'switchover-ack-legacy': 'on' }, ''],
    ['switched by hand at the source', { 'switchover-ack-legacy': 'on' }, { 'switchover-ack-legacy': 'off' }, 'on'],
    [
      'at the destination: the source writes the bytes',
      { 'switchover-ack-legacy': 'off' },
      { 'switchover-ack-legacy': 'on' },
      'off',
    ],
    ['not known at the destination: the old way', { 'switchover-ack-legacy': 'off' }, {}, 'on'],
    ['not known at the source', {}, { 'switchover-ack-legacy': 'off' }, 'on'],
    ['no value that is known', { 'switchover-ack-legacy': 'maybe' }, { 'switchover-ack-legacy': 'off' }, 'on'],
    ['not known, and old at the other', {}, { 'switchover-ack-legacy': 'on' }, ''],
  ];

for (const [name, here, there, value] of DIALECTS) {
  test(`dialect: ${name}`, () => {
    const rest = Object.fromEntries(
      COMPAT_NAMES.filter((one) => one !== 'switchoverAckLegacy').map((one) => [
        COMPAT_PROPERTIES[one].property,
        compatText(COMPAT_PROPERTIES[one].modern),
      ]),
    );
    const endOf = (dialect: Record<string, string>) => ({
      ...factsOf({}),
      machineType: 'workload-11.1',
      dialect: { ...rest, ...dialect },
    });
    const [source, destination] = [endOf(here), endOf(there)];
    const settled = settle(source, destination);
    assert.equal(textOf(settled), value === '' ? '' : `compat switchover-ack-legacy=${value}`);
    assert.deepEqual(acceptSettled(source, destination, {}), { settled, refused: [] });
    assert.deepEqual(settle({ ...source, handshake: 1 }, destination), []);
    assert.deepEqual(settle({ ...source, machineType: 'workload-9.0' }, destination), []);
  });
}

test('every setting that is declared to be settled is settled above', () => {
  const named = CASES.map(([, , , settled]) => settled).join(' ');
  const declared = [
    ...CAPABILITY_NAMES.filter((name) => capabilityDeclaration(name).settle !== undefined),
    ...PARAMETER_NAMES.filter((name) => parameterDeclaration(name).settle !== undefined),
  ];
  assert.deepEqual(
    declared.filter((name) => !named.includes(`${name}=`)),
    [],
  );
});

/** Settings that go together, some of them given. */
const anySettings = fc
  .record({
    capabilities: fc.subarray(
      CAPABILITY_NAMES.filter((name) => capabilityDeclaration(name).support === 'yes' && name !== 'mapped-ram'),
    ),
    off: fc.subarray(CAPABILITY_NAMES.slice()),
    channels: fc.option(fc.integer({ min: 1, max: 255 })),
    compression: fc.option(fc.constantFrom('none', 'zlib', 'zstd')),
    machineType: fc.constantFrom(undefined, 'pc-7.0', 'pc-8.0', 'pc-9.0', 'pc-11.1'),
    insist: fc.boolean(),
  })
  .map(({ capabilities, off, channels, compression, machineType, insist }) => {
    const settings = new Settings({ machineType });
    settings.setCapabilities(off.map((capability) => ({ capability, state: false })));
    for (const capability of capabilities) {
      try {
        settings.setCapabilities([{ capability, state: true }]);
      } catch {
        // It does not go with the others: then it is not on.
      }
    }
    if (channels !== null) settings.setParameters({ 'multifd-channels': channels });
    if (compression !== null) settings.setParameters({ 'multifd-compression': compression });
    if (insist && machineType === undefined) settings.setParameters({ 'x-handshake-insist': true });
    return settings;
  });
const cannots = fc.constantFrom(ONE_CONNECTION, WHOLE_RAM, new Set<CapabilityName>());

test('whatever the two ends were given: what is settled both can do, and nothing that can be settled is left', () => {
  fc.assert(
    fc.property(anySettings, anySettings, cannots, cannots, (a, b, cannotA, cannotB) => {
      const [source, destination] = [settingFacts(a, cannotA), settingFacts(b, cannotB)];
      const settled = settle(source, destination);
      const told = Object.fromEntries(settled.map(({ name, value }) => [name, value]));
      assert.deepEqual(acceptSettled(source, destination, told), { settled, refused: [] });
      const ends = [withSettled(source, settled), withSettled(destination, settled)] as const;
      for (const { capabilities = {} } of ends) {
        const on = CAPABILITY_NAMES.filter((name) => capabilities[name] === true);
        assert.equal(findCapabilityConflict(new Set([...on, 'return-path' as const])), undefined, JSON.stringify(told));
      }
      for (const name of CAPABILITY_NAMES) {
        if (capabilityDeclaration(name).settle !== 'both') continue;
        assert.equal(ends[0].capabilities?.[name] === true, ends[1].capabilities?.[name] === true, name);
      }
      for (const { name, value } of settled) {
        const wanted = [source, destination].map((end) => ({ ...end.capabilities, ...end.parameters })[name]);
        assert.ok(value === false || typeof value === 'number' || wanted.includes(value), `${name} ${value}`);
      }
    }),
    { numRuns: 500 },
  );
});

const TOLD: readonly [told: Record<string, boolean | number | string>, refused: RegExp | undefined][] = [
  [{ 'multifd-channels': 3 }, undefined],
  [{ 'multifd-channels': 17 }, /multifd-channels: the destination says 17, which the source \(4\) cannot do/],
  [{ 'multifd-channels': 0 }, /multifd-channels/],
  [{ 'multifd-channels': '3' }, /multifd-channels/],
  [{ 'multifd-compression': 'zstd' }, undefined],
  [{ 'multifd-compression': 'qpl' }, /multifd-compression/],
  [{ multifd: false }, undefined],
  [{ multifd: 1 }, /multifd/],
  [{ 'max-bandwidth': 1 }, /max-bandwidth/],
  [{ 'tls-creds': 'x' }, /tls-creds/],
  [{ 'x-ignore-shared': true }, /x-ignore-shared/],
  [{ 'postcopy-preempt': true }, /postcopy-preempt: at the source it does not go with postcopy-ram/],
  [{ 'x-later': true, toString: 3 }, undefined],
];

for (const [told, refused] of TOLD) {
  test(`the destination says ${JSON.stringify(told)}`, () => {
    const source = factsOf({ given: FOUR });
    const { settled, refused: reasons } = acceptSettled(source, factsOf({ given: FOUR }), told);
    if (refused !== undefined) return assert.match(reasons.join('\n'), refused);
    assert.deepEqual(reasons, []);
    assert.ok(settled.every(({ name, value }) => told[name] === value));
  });
}

function shaking(given: string): Settings {
  const settings = settingsOf(given);
  settings.setCapabilities([{ capability: 'x-vmferry-handshake', state: true }]);
  settings.setParameters({ 'max-bandwidth': 0 });
  return settings;
}

async function machines(t: TestContext) {
  const options = { ram: 8 * MIB, vcpus: 1, dirtyRate: 1e6 };
  const source = await createWorkload(options);
  const destination = await createWorkload({ ...options, incoming: true });
  t.after(() => Promise.all([source.dispose(), destination.dispose()]));
  await source.resume();
  return { source, destination };
}

/** Two machines that move; what was settled, and how many channels have carried pages. */
const MOVES: readonly [source: string, destination: string, settled: Record<string, string>, channels: number][] = [
  ['', '', {}, 0],
  [FOUR, '', { multifd: 'on', 'multifd-channels': '4' }, 4],
  ['', FOUR, { multifd: 'on', 'multifd-channels': '4' }, 4],
  [FOUR, 'multifd=on multifd-channels=3', { 'multifd-channels': '3' }, 3],
  ['multifd=on multifd-channels=3', FOUR, { 'multifd-channels': '3' }, 3],
  [FOUR, 'multifd=off', { multifd: 'off' }, 0],
  ['multifd=off', FOUR, { multifd: 'off' }, 0],
  ['xbzrle=on', FOUR, { multifd: 'off' }, 0],
  ['multifd=on multifd-compression=zlib', 'multifd=on', { 'multifd-compression': 'zlib' }, 2],
  ['multifd=on multifd-compression=zlib', 'multifd=on multifd-compression=zstd', { 'multifd-compression': 'zlib' }, 2],
  [ACK, '', { 'switchover-ack': 'on' }, 0],
  [
    'postcopy-ram=on postcopy-preempt=on',
    'postcopy-preempt=off',
    { 'postcopy-ram': 'on', 'postcopy-preempt': 'off' },
    0,
  ],
];

for (const [ours, theirs, settled, channels] of MOVES) {
  test(`moves with ${JSON.stringify(settled)}: ${ours || '-'} | ${theirs || '-'}`, async (t) => {
    let threads = 0;
    const { ended, outgoing } = await moveOver({
      ...(await machines(t)),
      settings: shaking(ours),
      destinationSettings: shaking(theirs),
      outgoing: {
        pass: () => {
          threads = outgoing.threads.length;
        },
      },
    });
    const { source, destination } = await ended;
    assert.equal(source.status, 'completed', 'error' in source ? explain(source.error) : '');
    assert.equal(destination.status, 'completed', explain(destination.error));
    for (const { info } of [source, destination]) {
      const found = info['x-handshake']?.settled.map(({ name, value }) => [name, value]) ?? [];
      assert.deepEqual(Object.fromEntries(found), settled);
    }
    assert.equal(threads, channels);
    if (channels > 0) assert.ok((source.info.ram?.['multifd-bytes'] ?? 0) > 0);
  });
}

for (const [theirs, refused] of [
  [FOUR, undefined],
  ['multifd=on x-handshake-insist=on', /multifd is off at the source, on .*: the destination insists/],
] as const) {
  test(`a source that can make one connection only: ${theirs}`, async (t) => {
    const { source, destination } = await machines(t);
    const listener = await listen({ kind: 'tcp', host: '127.0.0.1', port: 0 });
    const settings = shaking(theirs);
    const incoming = new IncomingMigration({ machine: destination, settings, listener, takesAnyMachine: false });
    const outgoing = new OutgoingMigration({
      machine: source,
      settings: shaking(''),
      connect: (signal) => connect(listener.address, { signal }),
      returnPath: () => true,
    });
    const [arrived, left] = await Promise.all([incoming.run(), outgoing.run()]);
    if (refused === undefined) return assert.equal(arrived.status, 'completed', explain(arrived.error));
    assert.match('error' in left ? explain(left.error) : '', refused);
    assert.match(explain(arrived.error), refused);
    assert.equal(source.runState, 'running');
  });
}

for (const [ours, theirs] of [
  [FOUR, ''],
  ['', FOUR],
  [FOUR, 'multifd=off'],
] as const) {
  test(`in TLS: ${ours || '-'} | ${theirs || '-'}`, async (t) => {
    const { ended } = await moveOver({
      ...(await machines(t)),
      settings: shaking(ours),
      destinationSettings: shaking(theirs),
      tls: folders.pair('psk'),
    });
    const { source, destination } = await ended;
    assert.equal(source.status, 'completed', 'error' in source ? explain(source.error) : '');
    assert.equal(destination.status, 'completed', explain(destination.error));
    assert.equal((source.info.ram?.['multifd-bytes'] ?? 0) > 0, theirs !== 'multifd=off');
  });
}

test('without a handshake nothing is settled', async (t) => {
  const { ended } = await moveOver({ ...(await machines(t)), settings: testSettings() });
  const { source } = await ended;
  assert.equal(source.info['x-handshake'], undefined);
});
