/** `check` on real processes: what it finds is what differs, and nothing of them changes. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import type { Finding } from '../../src/migration/index.ts';
import { checkEnds, migrate, PorcelainError } from '../../src/porcelain/index.ts';
import { type QemuPeer, QemuProcess } from '../../src/qemu/index.ts';
import { parseAssignments } from '../../src/settings/index.ts';
import { Spawned, startRun, temporaryFolder } from '../cli/spawned.ts';
import { peerOrSkip } from '../support/peers.ts';

const MACHINE: Readonly<Record<string, string>> = {
  '-machine': 'pc-q35-7.2',
  '-accel': 'tcg',
  '-m': '64',
  '-cpu': 'qemu64',
  '-device': 'virtio-rng-pci',
};

/** A QEMU with the machine above but for `changes`; '' leaves an option out. */
async function start(t: TestContext, peer: QemuPeer, changes: Readonly<Record<string, string>> = {}) {
  const options = Object.entries({ ...MACHINE, ...changes }).filter(([, value]) => value !== '');
  const qemu = await QemuProcess.start({ peer, args: ['-nodefaults', ...options.flat()] });
  t.after(() => qemu.stop());
  return qemu;
}

const arriving = (t: TestContext, peer: QemuPeer, changes: Readonly<Record<string, string>> = {}) =>
  start(t, peer, { ...changes, '-incoming': 'defer' });

async function findings(source: string, destination: string): Promise<readonly Finding[]> {
  return (await checkEnds({ source, destination })).findings;
}

const failed = (list: readonly Finding[]) => list.filter(({ verdict }) => verdict === 'fail');

/** All that `check` might have changed. */
async function stateOf({ qmp }: QemuProcess): Promise<unknown[]> {
  const commands = ['query-status', 'query-migrate', 'query-migrate-capabilities', 'query-migrate-parameters'] as const;
  return Promise.all(commands.map((command) => qmp.execute(command)));
}

const peers = await Promise.all(['7.2', '10.0', '11.1'].map((name) => peerOrSkip(name)));
const skip = peers.find(({ skip }) => skip !== false)?.skip ?? false;
const [old, middle, newest] = peers.map(({ peer }) => peer) as [QemuPeer, QemuPeer, QemuPeer];

test('the same machine in each version fits in all of them, and is not touched; back to an older version is a warning', {
  skip,
}, async (t) => {
  for (const [from, to] of [
    [old, middle],
    [middle, newest],
    [newest, old],
  ] as const) {
    const [source, destination] = [await start(t, from), await arriving(t, to)];
    const before = [await stateOf(source), await stateOf(destination)];
    const found = await findings(source.qmpPath, destination.qmpPath);
    assert.deepEqual(failed(found), []);
    assert.deepEqual(
      found.filter(({ verdict }) => verdict === 'warn').map(({ rule }) => rule),
      from === newest ? ['version'] : [],
    );
    const looked = ['machine type', 'memory', 'cpus', 'capabilities', 'parameters', 'devices', 'pci'];
    for (const rule of looked)
      assert.ok(
        found.some((one) => one.rule === rule && one.verdict === 'pass'),
        rule,
      );
    assert.deepEqual([await stateOf(source), await stateOf(destination)], before);
  }
});

const DIFFERENCES: readonly { changes: Record<string, string>; rules: readonly string[]; reason: RegExp }[] = [
  { changes: { '-machine': 'pc-q35-6.2' }, rules: ['machine type'], reason: /pc-q35-7\.2 .* pc-q35-6\.2/ },
  { changes: { '-m': '128' }, rules: ['memory'], reason: /'pc\.ram': 67108864 bytes .* 134217728/ },
  { changes: { '-smp': '2' }, rules: ['cpus'], reason: /1 vCPUs at the source, 2/ },
  { changes: { '-cpu': 'Nehalem' }, rules: ['cpus'], reason: /qemu64.* Nehalem/ },
  { changes: { '-device': '' }, rules: ['devices', 'pci'], reason: /virtio-rng-pci: 1 at the source, 0/ },
  {
    changes: { '-device': 'virtio-rng-pci,addr=9' },
    rules: ['pci'],
    reason: /00:01\.0 \(1af4:1005\) is at the source only/,
  },
];

for (const { changes, rules, reason } of DIFFERENCES) {
  test(`a destination with ${JSON.stringify(changes)} does not fit: ${rules.join(', ')}`, { skip }, async (t) => {
    const [source, destination] = [await start(t, middle), await arriving(t, middle, changes)];
    const wrong = failed(await findings(source.qmpPath, destination.qmpPath));
    assert.deepEqual([...new Set(wrong.map(({ rule }) => rule))], rules);
    assert.match(wrong.map((one) => one.reason).join('\n'), reason);
  });
}

test('settings on one side only; migrate refuses before it touches the guest, unless it shall not look', {
  skip,
}, async (t) => {
  const [source, destination] = [await start(t, middle), await arriving(t, newest, { '-m': '128' })];
  await destination.qmp.execute('migrate-set-capabilities', { capabilities: [{ capability: 'multifd', state: true }] });
  const wrong = failed(await findings(source.qmpPath, destination.qmpPath));
  assert.deepEqual(
    wrong.map(({ rule }) => rule),
    ['memory', 'capabilities'],
  );
  const options = {
    source: source.qmpPath,
    destination: { qmp: destination.qmpPath },
    settings: parseAssignments(['multifd=off']),
  };
  const refused = (error: unknown) => error instanceof PorcelainError && error.code === 'ENDS_DIFFER';
  await assert.rejects(migrate(options), refused);
  assert.equal((await source.qmp.execute('query-migrate')).status, undefined);
  assert.equal((await destination.qmp.execute('query-status')).status, 'inmigrate');
  const outcome = await migrate({ ...options, unchecked: true });
  assert.equal(outcome.status, 'failed');
  assert.equal(outcome.source, 'running');
});

test('two vmferry processes, and a vmferry with a QEMU: lines for people, findings for programs', {
  skip,
}, async (t) => {
  const folder = await temporaryFolder(t);
  const at = (name: string) => join(folder, name);
  const machine = ['--ram', '16M', '--uuid', '01234567-89ab-cdef-0123-456789abcdef'];
  await startRun(t, at('a'), ...machine, '--vf', '1');
  await startRun(t, at('b'), ...machine, '--vf', '1', '--incoming', 'defer');
  await startRun(t, at('c'), '--ram', '32M', '--vcpus', '3', '--incoming', 'defer', '--machine', 'workload-7.2');
  const good = new Spawned(t, ['check', at('a'), at('b')]);
  assert.equal(await good.exited, 0, good.stdout + good.stderr);
  assert.match(good.stdout, /^Pass {2}machine type {2}workload-11\.1$/m);
  assert.match(good.stdout, /^Pass {2}uuid {10}01234567-89ab-cdef-0123-456789abcdef$/m);
  assert.match(good.stdout, /^The two ends fit: 0 failed, 0 warnings/m);
  const bad = await new Spawned(t, ['check', at('a'), at('c'), '--json']).result(1);
  const wrong = failed(bad['findings'] as Finding[]);
  assert.deepEqual([...new Set(wrong.map(({ rule }) => rule))], ['machine type', 'memory', 'cpus', 'vfio']);
  assert.equal((bad['error'] as { code: string }).code, 'ENDS_DIFFER');
  const qemu = await arriving(t, newest);
  const mixed = failed(await findings(at('a'), qemu.qmpPath));
  assert.ok(mixed.some(({ reason }) => reason.startsWith('workload-11.1 at the source, pc-q35-7.2 at')));
  const nobody = await new Spawned(t, ['check', at('a'), at('nobody'), '--json']).result(1);
  assert.equal((nobody['error'] as { code: string }).code, 'QMP_CONNECT_FAILED');
});
