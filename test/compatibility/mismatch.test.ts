/**
 * The mismatch table: every capability, and every parameter that both ends must agree on, at one end only, in both directions, between two vmferry ends and with
 * QEMU 11.1 as the other. Each cell migrates, or fails at once with a message of one of the ends that names the setting; none is ended by a deadline of the test.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { explain } from '../../src/base/index.ts';
import { CheckpointReader, CheckpointWriter, createWorkload } from '../../src/machine/index.ts';
import { connector, dialer, IncomingMigration, OutgoingMigration } from '../../src/migration/index.ts';
import { type QemuPeer, QemuProcess } from '../../src/qemu/index.ts';
import {
  CAPABILITY_NAMES,
  type CapabilityName,
  capabilityDeclaration,
  type ParameterName,
  Settings,
} from '../../src/settings/index.ts';
import { type Address, formatAddress, type Listener, listen, parseAddress } from '../../src/transport/index.ts';
import { moveOver } from '../support/move-over.ts';
import { peerOrSkip } from '../support/peers.ts';

const MIB = 1024 * 1024;
/** Of the waits that a mismatch may end in: short, so that what they end is seen to be theirs, ms. */
const WAIT_MS = 1_500;
/** Longer than any cell on a busy machine; the waits that are not declared would be 2 minutes, ms. */
const AT_ONCE_MS = 30_000;

interface Mismatch {
  readonly name: CapabilityName | ParameterName;
  /** On at both ends. */
  readonly both: readonly CapabilityName[];
  /** Over that, at one end. */
  readonly one:
    | { readonly capability: CapabilityName }
    | { readonly parameter: ParameterName; readonly value: unknown };
}

/** Those that vmferry has but for: a file is no other end (mapped-ram), and the handshake has its own test. */
const CAPABILITIES = CAPABILITY_NAMES.filter(
  (name) => capabilityDeclaration(name).support === 'yes' && !['mapped-ram', 'x-vmferry-handshake'].includes(name),
);

const MISMATCHES: readonly Mismatch[] = [
  ...CAPABILITIES.map((capability) => {
    const { requires = [] } = capabilityDeclaration(capability);
    return { name: capability, both: requires as readonly CapabilityName[], one: { capability } };
  }),
  { name: 'multifd-channels', both: ['multifd'], one: { parameter: 'multifd-channels', value: 3 } },
  { name: 'multifd-compression', both: ['multifd'], one: { parameter: 'multifd-compression', value: 'zlib' } },
];

/** Settings that a mismatch is known to be harmless for: what is at one end only is not used, or is that end's alone. */
const HARMLESS: ReadonlySet<string> = new Set(
  CAPABILITIES.filter((name) => ['offered', 'destination', undefined].includes(capabilityDeclaration(name).ends)),
);

/**
 * Cells that fail at once, but where neither end can say more than that: what the other end says instead. `vmferry check`, and `vmferry migrate` before it
 * begins, names the setting in all of them.
 */
const SAID_INSTEAD: Readonly<Record<string, RegExp>> = {
  'vmferry -> vmferry: multifd-channels at the source only': /multifd 2: .*connection lost/,
  'vmferry -> QEMU 11.1: multifd-channels at the source only': /multifd 2: .*connection lost/,
  'vmferry -> QEMU 11.1: multifd-compression at the source only': /multifd \d: flags received 2 flags expected 0/,
  'vmferry -> QEMU 11.1: multifd-compression at the destination only': /multifd \d: flags received 0 flags expected 2/,
  'vmferry -> QEMU 11.1: postcopy-ram at the source only': /RAM postcopy is disabled/,
  'vmferry -> QEMU 11.1: x-ignore-shared at the source only': /Failed to validate capabilities/,
  'vmferry -> QEMU 11.1: x-ignore-shared at the destination only': /Failed to validate capabilities/,
  'QEMU 11.1 -> vmferry: multifd at the source only': /Connection refused|Unable to write to socket|Connection reset/,
  // Named unless the channel that is too many comes last.
  'QEMU 11.1 -> vmferry: multifd-channels at the source only': /multifd-channels|Connection reset/,
};

type Side = 'source' | 'destination';
const SIDES: readonly Side[] = ['source', 'destination'];

function settingsOf({ both, one }: Mismatch, here: boolean): Settings {
  const settings = new Settings();
  const on = [...both, ...(here && 'capability' in one ? [one.capability] : [])];
  settings.setCapabilities(on.map((capability) => ({ capability, state: true })));
  settings.setParameters({ 'max-bandwidth': 0, 'downtime-limit': 30_000 });
  settings.setParameters({
    'x-setup-timeout': WAIT_MS,
    'x-arrival-timeout': WAIT_MS,
    'x-silence-timeout': 4 * WAIT_MS,
  });
  if (here && 'parameter' in one) settings.setParameters({ [one.parameter]: one.value });
  return settings;
}

interface End {
  readonly status: string;
  readonly error?: unknown;
}

function judge(cell: string, mismatch: Mismatch, ends: readonly End[], startedMs: number): void {
  const told = ends.map(({ status, error }) => `${status}: ${error === undefined ? '' : explain(error)}`).join('\n');
  assert.ok(performance.now() - startedMs < AT_ONCE_MS, `not at once\n${told}`);
  if (ends.every(({ status }) => status === 'completed')) return;
  assert.ok(!HARMLESS.has(mismatch.name), told);
  assert.match(told, SAID_INSTEAD[cell] ?? new RegExp(mismatch.name), told);
}

for (const mismatch of MISMATCHES) {
  for (const side of SIDES) {
    const cell = `vmferry -> vmferry: ${mismatch.name} at the ${side} only`;
    test(cell, async (t) => {
      const options = { ram: 2 * MIB, vcpus: 1, dirtyRate: 1e6 };
      const source = await createWorkload(options);
      const destination = await createWorkload({ ...options, incoming: true });
      t.after(() => Promise.all([source.dispose(), destination.dispose()]));
      await source.resume();
      const startedMs = performance.now();
      const { ended, outgoing } = await moveOver({
        source,
        destination,
        settings: settingsOf(mismatch, side === 'source'),
        destinationSettings: settingsOf(mismatch, side === 'destination'),
        // A person, who is there at once.
        outgoing: { status: (status) => void (status === 'pre-switchover' && setImmediate(() => outgoing.continue())) },
      });
      const { source: left, destination: arrived } = await ended;
      judge(cell, mismatch, [left, arrived], startedMs);
      assert.equal(source.runState, left.status === 'completed' ? 'postmigrate' : 'running');
    });
  }
}

const { peer, skip } = await peerOrSkip('11.1');
const MACHINE = ['-nodefaults', '-machine', 'pc-i440fx-11.1', '-accel', 'tcg', '-m', '4', '-S'];

async function start(t: TestContext, qemu: QemuPeer, ...args: readonly string[]): Promise<QemuProcess> {
  const started = await QemuProcess.start({ peer: qemu, args: [...MACHINE, ...args] });
  t.after(() => started.stop());
  return started;
}

/** Sets in a QEMU what `settings` say beyond the defaults, as far as it is QEMU's. */
async function apply({ qmp }: QemuProcess, mismatch: Mismatch, here: boolean): Promise<void> {
  const on = [...mismatch.both, ...(here && 'capability' in mismatch.one ? [mismatch.one.capability] : [])];
  await qmp.execute('migrate-set-capabilities', {
    capabilities: on.map((capability) => ({ capability, state: true })),
  });
  if (here && 'parameter' in mismatch.one)
    await qmp.execute('migrate-set-parameters', { [mismatch.one.parameter]: mismatch.one.value as string | number });
}

async function folderOf(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'vmferry-mismatch-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

async function receive(listener: Listener, file: string, settings: Settings) {
  const machine = new CheckpointWriter(file);
  return await new IncomingMigration({ machine, settings, listener, takesAnyMachine: true }).run();
}

/** How the migration of a QEMU has ended; `exit-on-error` is off, so it lives to tell. */
async function endOf({ qmp }: QemuProcess, timeoutMs = AT_ONCE_MS): Promise<End> {
  const info = await qmp
    .waitForMigration(['completed', 'failed', 'cancelled'], { timeoutMs })
    .catch((error) => ({ status: 'failed', 'error-desc': explain(error) }));
  return { status: info.status ?? 'none', ...(info['error-desc'] && { error: new Error(info['error-desc']) }) };
}

/** In every test run multifd alone; all of them: npm run mismatches. */
const WITH_QEMU = MISMATCHES.filter(({ name }) => process.env['VMFERRY_MISMATCH'] === 'all' || name === 'multifd');

for (const mismatch of WITH_QEMU) {
  for (const side of SIDES) {
    const into = `QEMU 11.1 -> vmferry: ${mismatch.name} at the ${side} only`;
    test(into, { skip }, async (t) => {
      const qemu = await start(t, peer!);
      await apply(qemu, mismatch, side === 'source');
      const listener = await listen({ kind: 'tcp', host: '127.0.0.1', port: 0 });
      const startedMs = performance.now();
      const arriving = receive(listener, join(await folderOf(t), 'ckpt'), settingsOf(mismatch, side === 'destination'));
      await qemu.qmp.execute('migrate', { uri: formatAddress(listener.address) });
      const arrived = await arriving;
      if (arrived.status === 'failed') await qemu.qmp.execute('migrate_cancel').catch(() => {});
      judge(into, mismatch, [await endOf(qemu), arrived], startedMs);
    });

    const outOf = `vmferry -> QEMU 11.1: ${mismatch.name} at the ${side} only`;
    test(outOf, { skip }, async (t) => {
      const file = join(await folderOf(t), 'ckpt');
      const listener = await listen({ kind: 'tcp', host: '127.0.0.1', port: 0 });
      const saving = receive(listener, file, new Settings());
      const first = await start(t, peer!);
      await first.qmp.execute('migrate', { uri: formatAddress(listener.address) });
      assert.equal((await saving).status, 'completed');
      const qemu = await start(t, peer!, '-incoming', 'defer');
      await apply(qemu, mismatch, side === 'destination');
      await qemu.qmp.execute('migrate-incoming', { uri: 'tcp:127.0.0.1:0', 'exit-on-error': false });
      const { 'socket-address': listening } = await qemu.qmp.execute('query-migrate');
      const inet = listening?.at(-1);
      assert.ok(inet?.type === 'inet');
      const address: Address = parseAddress(`tcp:127.0.0.1:${inet.port}`);
      const settings = settingsOf(mismatch, side === 'source');
      const machine = await CheckpointReader.open(file);
      t.after(() => machine.close());
      const startedMs = performance.now();
      const migration = new OutgoingMigration({
        machine,
        settings,
        connect: connector(address, { settings }),
        dial: dialer(address, { settings }),
        returnPath: () => true,
      });
      const left = await migration.run();
      // One that waits for channels that never come does not notice that its source is gone.
      const { error } = await endOf(qemu, 4 * WAIT_MS);
      const arrived = { status: left.status, error };
      judge(outOf, mismatch, [left, arrived], startedMs);
    });
  }
}
