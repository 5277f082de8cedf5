/** A running machine moves in TLS, over one channel, several, and by postcopy; and what becomes of it when somebody is in between. */
import assert from 'node:assert/strict';
import test, { after, type TestContext } from 'node:test';
import { explain } from '../../src/base/index.ts';
import type { WorkloadOptions } from '../../src/machine/index.ts';
import type { Settings } from '../../src/settings/index.ts';
import type { Address } from '../../src/transport/index.ts';
import { assertCompleted } from '../support/completed.ts';
import { type CutProxy, cutProxy } from '../support/cut-proxy.ts';
import { testSettings } from '../support/move.ts';
import { moveOver } from '../support/move-over.ts';
import { PostcopyMove } from '../support/postcopy-move.ts';
import { TlsFolders } from '../support/tls-folders.ts';
import { verified, type WorkloadPair, workloadPair } from '../support/workload-pair.ts';

const MIB = 1024 * 1024;

const folders = new TlsFolders();
after(() => folders.close());

async function machines(t: TestContext, options: Partial<WorkloadOptions> = {}): Promise<WorkloadPair> {
  const pair = await workloadPair(t, { fill: 0.5, ...options });
  await pair.source.resume();
  return pair;
}

type Values = Parameters<Settings['setParameters']>[0];

function settingsOf(channels: number, values: Values = {}): Settings {
  return testSettings((settings) => {
    settings.setCapabilities([{ capability: 'multifd', state: channels > 0 }]);
    settings.setParameters({ ...values, ...(channels > 0 ? { 'multifd-channels': channels } : {}) });
  });
}

const MOVES: readonly [kind: 'x509' | 'psk', channels: number, machineType: string, values?: Values][] = [
  ['x509', 0, 'workload-11.1'],
  ['psk', 0, 'workload-7.2'],
  ['x509', 4, 'workload-11.1'],
  ['psk', 4, 'workload-8.0'],
  ['psk', 16, 'workload-11.1'],
  ['psk', 2, 'workload-11.1', { 'multifd-compression': 'zlib' }],
];

for (const [kind, channels, machineType, values] of MOVES) {
  test(`${kind}, ${channels} channels, ${machineType} ${JSON.stringify(values ?? {})}`, async (t) => {
    const { source, destination } = await machines(t, { machineType });
    const moved = await moveOver({
      source,
      destination,
      settings: settingsOf(channels, values),
      tls: folders.pair(kind),
    });
    const ended = await moved.ended;
    assert.equal(ended.source.status, 'completed', explain(moved.outgoing.info()['error-desc']));
    assertCompleted(ended.destination);
    assert.equal(ended.destination.confirmed, true);
    if (channels > 0) assert.ok(moved.outgoing.info().ram!['multifd-bytes'] > MIB);
    await verified(destination);
  });
}

for (const preemptChannels of [0, 1, 3]) {
  test(`postcopy with connections that break, ${preemptChannels} preempt channels`, async (t) => {
    const { source, destination } = await machines(t, { ram: 16 * MIB, dirtyRate: 100e6 });
    const moved = await PostcopyMove.between({
      source,
      destination,
      preempt: preemptChannels > 0,
      ...(preemptChannels > 1 && {
        preemptChannels: { source: preemptChannels, destination: preemptChannels },
      }),
      bandwidth: 10 * MIB,
      tls: folders.pair('psk'),
    });
    moved.outgoing.startPostcopy();
    const active = moved.here.next('postcopy-active');
    const run = moved.completed();
    await active;
    for (const how of ['end', 'reset'] as const) {
      await moved.sent(256 * 1024);
      await moved.breakAndRecover(how);
    }
    await run;
    await verified(destination);
  });
}

/** What somebody in between can do to sealed bytes, once that many have passed on the connection (0: main, then as they came). */
interface Attack {
  readonly name: string;
  readonly connection: number;
  readonly after: number;
  readonly how: 'end' | 'reset' | 'change';
  /** What the destination says; if the source sees a channel break first, main is what breaks there. */
  readonly says: RegExp;
}

const ATTACKS: readonly Attack[] = [
  { name: 'main is ended', connection: 0, after: 1500, how: 'end', says: /TLS session did not|ended|lost/ },
  {
    name: 'a channel is ended',
    connection: 2,
    after: 300_000,
    how: 'end',
    says: /(multifd \d|main).*(TLS session did not|lost)/,
  },
  {
    name: 'a channel is reset',
    connection: 1,
    after: 300_000,
    how: 'reset',
    says: /multifd \d: .*lost|main .*TLS session did not/,
  },
  {
    name: 'a byte on a channel is changed',
    connection: 1,
    after: 300_000,
    how: 'change',
    says: /multifd \d: .*TLS: .*mac/,
  },
];

for (const { name, connection, after: bytes, how, says } of ATTACKS) {
  test(`somebody in between: ${name}`, async (t) => {
    const { source, destination } = await machines(t);
    let proxy: CutProxy | undefined;
    const via = async (listening: Address) => {
      const plan = how === 'change' ? undefined : { direction: 'toTarget' as const, after: bytes, how, connection };
      proxy = await cutProxy(listening as Address & { kind: 'tcp' }, plan);
      let passed = 0;
      proxy.onBytes = (direction, chunk, number) => {
        if (how !== 'change' || direction !== 'toTarget' || number !== connection) return;
        if (passed <= bytes && passed + chunk.length > bytes) chunk[bytes - passed]! ^= 1;
        passed += chunk.length;
      };
      return proxy.address;
    };
    t.after(() => proxy?.close());
    const settings = settingsOf(4, { 'max-bandwidth': 20 * MIB });
    const moved = await moveOver({ source, destination, settings, tls: folders.pair('psk'), via });
    const ended = await moved.ended;
    assert.deepEqual([ended.source.status, ended.destination.status], ['failed', 'failed']);
    assert.match(explain(ended.destination.error), says);
    assert.equal(source.runState, 'running');
    assert.equal(destination.runState, 'inmigrate');
    await verified(source);
  });
}
