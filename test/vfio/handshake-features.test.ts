/**
 * The six ways in which two versions and two machine types can meet (the discussion of hw_compat tables that the mismatch table comes from), at the level of
 * a device: X is older, Y has given the device a feature. Here nobody has switched the feature off for the older machine type, which is the case that the
 * tables exist for: the handshake finds out device by device, and both ends go by what they have in common.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import { explain } from '../../src/base/index.ts';
import { Settings } from '../../src/settings/index.ts';
import type { Span, SpanKind } from '../../src/vfio/index.ts';
import { memoryPair } from '../support/memory-channel.ts';
import { move } from '../support/move.ts';
import { busyVfs, type MachineWithVfs, verifyAll, vfPair } from '../support/vf-machines.ts';

/** Longer than everything else in these migrations takes. */
const ALLOCATION_MS = 200;

type Version = 'X' | 'Y';

/** Version of the source, of the machine type, of the destination. */
const SIX: readonly [a: Version, machine: Version, b: Version][] = [
  ['X', 'X', 'X'],
  ['X', 'Y', 'X'],
  ['Y', 'X', 'Y'],
  ['Y', 'Y', 'Y'],
  ['X', 'X', 'Y'],
  ['Y', 'X', 'X'],
];
/** And the one that the six leave out: a machine type that the destination does not have. */
const ALL: typeof SIX = [...SIX, ['Y', 'Y', 'X']];
const DIFFICULT = SIX.filter(([a, , b]) => a !== b);

interface Feature {
  readonly name: string;
  /** QEMU versions that X and Y are. */
  readonly versions: Readonly<Record<Version, string>>;
  /** Of a device without it. */
  readonly without: NonNullable<Parameters<typeof busyVfs>[1]>;
}

const FEATURES: readonly Feature[] = [
  // X has never heard of switchover-ack; then X knows it, and speaks the older dialect of it; then both speak the newer.
  { name: 'initial data', versions: { X: '8.0', Y: '11.1' }, without: { precopy: false } },
  { name: 'initial data', versions: { X: '10.0', Y: '11.0' }, without: { precopy: false } },
  { name: 'initial data', versions: { X: '11.0', Y: '11.1' }, without: { precopy: false } },
  { name: 'P2P', versions: { X: '10.0', Y: '11.1' }, without: { p2p: false } },
  { name: 'deadlines', versions: { X: '10.0', Y: '11.1' }, without: { deadlines: false } },
];

/** Of a process of that version: it knows what its QEMU knew, and switches on what it can. */
function settingsOf(version: string): Settings {
  const settings = new Settings({ machineType: `pc-${version}` });
  settings.setCapabilities([
    { capability: 'x-vmferry-handshake', state: true },
    { capability: 'return-path', state: true },
  ]);
  if (settings.isKnown('switchover-ack')) settings.setCapabilities([{ capability: 'switchover-ack', state: true }]);
  settings.setParameters({ 'max-bandwidth': 0, 'downtime-limit': 2_000_000 });
  return settings;
}

async function spanOf({ machine }: MachineWithVfs, kind: SpanKind): Promise<Span | undefined> {
  return (await machine.reports())[0]!.spans.find((span) => span.kind === kind);
}

for (const { name, versions, without } of FEATURES) {
  for (const [a, machineType, b] of name === 'initial data' ? ALL : DIFFICULT) {
    const possible = machineType === 'X' || (a === 'Y' && b === 'Y');
    const title = `${name}: ${a} (${versions[a]}) with machine type ${machineType} to ${b} (${versions[b]})`;
    test(title, async (t) => {
      // A version has the machine types up to its own, and no others: it waits with the newest that it has.
      const newest = (version: Version) => (machineType === 'Y' && version === 'X' ? 'X' : machineType);
      const sideOf = (version: Version, type: Version) => ({
        vfs: busyVfs(1, { 'allocation-ms': ALLOCATION_MS, ...(version === 'X' ? without : {}) }),
        workload: { machineType: `workload-${versions[type]}` },
      });
      // X cannot even be asked for Y: what comes as such to it comes from elsewhere.
      const { source, destination } = await vfPair(t, sideOf(a, machineType), sideOf(b, newest(b)));
      const { ended } = move({
        source: source.machine,
        destination: destination.machine,
        channels: memoryPair(),
        settings: settingsOf(versions[a]),
        destinationSettings: settingsOf(versions[b]),
      });
      const { source: left, destination: arrived } = await ended;
      if (!possible) {
        for (const error of ['error' in left ? left.error : undefined, arrived.error])
          assert.match(explain(error), /machine type: workload-\S+ at the source, workload-\S+ at the destination/);
        assert.equal(source.machine.runState, 'running');
        return;
      }
      assert.equal(arrived.status, 'completed', explain(arrived.error));
      assert.equal(left.status, 'completed', 'error' in left ? explain(left.error) : '');
      await verifyAll(destination);
      const knows = [a, b].map((version) => settingsOf(versions[version]).isKnown('switchover-ack'));
      const settled = left.info['x-handshake']!.settled.map((one) => `${one.name}=${one.value}`);
      assert.deepEqual(settled, knows[0] === knows[1] ? [] : ['switchover-ack=off']);
      assert.deepEqual(arrived.info['x-handshake'], left.info['x-handshake']);
      if (name !== 'initial data') return;
      const both = a === 'Y' && b === 'Y';
      const waits = knows.every((one) => one) && both;
      assert.equal(left.info['x-switchover-ack'], waits ? 'given' : undefined);
      const warned = left.info['x-handshake']!.warnings.filter((one) => one.includes('vf0'));
      const differs = knows.every((one) => one) && a !== b;
      assert.equal(warned.length, differs ? 1 : 0, warned.join('\n'));
      if (differs) assert.match(warned[0]!, a === 'Y' ? /at the source only/ : /at the destination only/);
      const ready = await spanOf(destination, 'initial');
      assert.equal(ready !== undefined, waits, 'INIT_DATA_SENT is said exactly if both go by it');
      if (ready === undefined) return;
      const stop = await spanOf(source, 'stop');
      assert.ok(ready.endMs! - ready.startMs >= ALLOCATION_MS && ready.endMs! <= stop!.startMs);
    });
  }
}

for (const switched of ['source', 'destination'] as const) {
  test(`the dialect of switchover-ack was switched by hand at the ${switched} only: both speak as the source does`, async (t) => {
    const side = {
      vfs: busyVfs(2, { 'allocation-ms': ALLOCATION_MS }),
      workload: { machineType: 'workload-11.1' },
    };
    const { source, destination } = await vfPair(t, side);
    const of = (end: typeof switched) => {
      const settings = settingsOf('11.1');
      if (end === switched) settings.setCompat({ switchoverAckLegacy: true });
      return settings;
    };
    const { ended } = move({
      source: source.machine,
      destination: destination.machine,
      channels: memoryPair(),
      settings: of('source'),
      destinationSettings: of('destination'),
    });
    const { source: left, destination: arrived } = await ended;
    assert.equal(arrived.status, 'completed', explain(arrived.error));
    const settled = left.info['x-handshake']!.settled.map((one) => `${one.name}=${one.value}`);
    assert.deepEqual(settled, [`compat switchover-ack-legacy=${switched === 'source' ? 'on' : 'off'}`]);
    assert.deepEqual(arrived.info['x-handshake']!.settled, left.info['x-handshake']!.settled);
    assert.equal(left.info['x-switchover-ack'], 'given');
    const [ready, stop] = [await spanOf(destination, 'initial'), await spanOf(source, 'stop')];
    assert.ok(ready!.endMs! <= stop!.startMs, 'the guest was stopped when the device was ready');
    await verifyAll(destination);
  });
}
