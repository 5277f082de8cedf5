/** Several preempt channels: how many the two ends agree on, moves over them, and each of them cut. */
import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import type { WorkloadMachine, WorkloadOptions } from '../../../src/machine/index.ts';
import { agreementOf, preemptChannels } from '../../../src/migration/handshake/agreement.ts';
import type { CutPlan, CutProxy } from '../../support/cut-proxy.ts';
import { testSettings } from '../../support/move.ts';
import { PostcopyMove, type PostcopyMoveOptions } from '../../support/postcopy-move.ts';
import { verified, workloadPair } from '../../support/workload-pair.ts';

const MIB = 1024 * 1024;
const PARAMETER = 'x-postcopy-preempt-channels';

/** A guest of four vCPUs, running, and its postcopy asked for. */
async function moving(
  t: TestContext,
  machine: Partial<WorkloadOptions>,
  options: Partial<PostcopyMoveOptions>,
): Promise<{ readonly moved: PostcopyMove; readonly destination: WorkloadMachine }> {
  const { source, destination } = await workloadPair(t, { ram: 4 * MIB, vcpus: 4, dirtyRate: 100e6, ...machine });
  await source.resume();
  const moved = await PostcopyMove.between({ source, destination, preempt: true, ...options });
  moved.outgoing.startPostcopy();
  return { moved, destination };
}

/** How many connections the proxy has seen by now, main included. */
function connections(proxy: CutProxy): () => number {
  let count = 0;
  proxy.onBytes = (_direction, _bytes, connection) => {
    count = Math.max(count, connection + 1);
  };
  return () => count;
}

const both = (count: number) => ({ source: count, destination: count });

const AGREED = [
  { name: 'the smaller number counts', preemptChannels: { source: 4, destination: 2 }, channels: 2 },
  { name: 'the smaller number counts, on either end', preemptChannels: { source: 1, destination: 16 }, channels: 1 },
  { name: 'an end that was told nothing follows', preemptChannels: { source: 3 }, channels: 3 },
  { name: 'two by default', preemptChannels: {}, channels: 2 },
  { name: 'without a handshake there is one', channels: 1 },
  { name: 'made early', preemptChannels: both(3), channels: 3, machine: { machineType: 'workload-7.2' } },
  { name: 'pages of 2 MiB and of 4 KiB', preemptChannels: both(4), channels: 4, machine: { hostPage: 2 * MIB } },
] as const;

for (const { name, channels, ...options } of AGREED) {
  test(`a whole move: ${name}`, async (t) => {
    const { machine = {}, ...rest } = { machine: {}, ...options };
    const { moved, destination } = await moving(t, machine, { bandwidth: 8 * MIB, ...rest });
    const seen = connections(moved.proxy);
    await moved.completed();
    assert.equal(seen(), 1 + channels);
    for (const end of [moved.outgoing, moved.incoming]) assert.equal(end.info()[PARAMETER], channels);
    assert.ok(moved.outgoing.info().ram!['postcopy-requests'] > 0);
    await verified(destination);
  });
}

test('an end that does not tell of several, or shakes no hands, has one', () => {
  const settings = testSettings((one) => one.setParameters({ [PARAMETER]: 4 }));
  const told = (parameters?: Record<string, unknown>) =>
    agreementOf({ source: {}, destination: {}, peer: parameters === undefined ? {} : { parameters } }, [], []);
  for (const [agreement, channels] of [
    [undefined, 1],
    [told(), 1],
    [told({ 'multifd-channels': 4 }), 1],
    [told({ [PARAMETER]: 4 }), 4],
  ] as const)
    assert.equal(preemptChannels(settings, agreement), channels);
});

for (const machineType of ['workload-11.1', 'workload-7.2']) {
  test(`${machineType}: each channel in its turn breaks, and all are made anew`, async (t) => {
    const { moved, destination } = await moving(t, { machineType }, { preemptChannels: both(3), bandwidth: 2 * MIB });
    const active = moved.both('postcopy-active');
    const run = moved.completed();
    await active;
    for (const [connection, how] of [
      [3, 'reset'],
      [1, 'end'],
      [2, 'reset'],
      [0, 'end'],
    ] as const) {
      const paused = moved.both('postcopy-paused');
      moved.proxy.sever(how, connection);
      await paused;
      const again = moved.both('postcopy-active');
      await moved.reconnect();
      const seen = connections(moved.proxy);
      await again;
      assert.equal(seen(), 4, 'as many as were agreed on');
    }
    await run;
    await verified(destination);
  });
}

test('a channel that is cut while the connection is made anew: paused again, and then it works', async (t) => {
  const { moved, destination } = await moving(t, {}, { preemptChannels: both(3), bandwidth: 2 * MIB });
  const active = moved.both('postcopy-active');
  const run = moved.completed();
  await active;
  let paused = moved.both('postcopy-paused');
  moved.proxy.sever('reset');
  await paused;
  for (const [connection, after, how] of [
    [1, 0, 'end'],
    [3, 0, 'reset'],
    [2, 3, 'end'],
    [3, 7, 'reset'],
    [1, 8, 'reset'],
  ] as const) {
    paused = moved.both('postcopy-paused');
    const cut: CutPlan = { direction: 'toTarget', connection, after, how };
    await moved.reconnect(cut);
    await paused;
  }
  await moved.reconnect();
  await run;
  await verified(destination);
});

test('one of several channels never says which it is: x-arrival-timeout, and the others are given up', async (t) => {
  const { moved, destination } = await moving(
    t,
    {},
    {
      preemptChannels: both(3),
      bandwidth: 2 * MIB,
      change: (settings) => settings.setParameters({ 'x-arrival-timeout': 2000 }),
    },
  );
  const active = moved.both('postcopy-active');
  const run = moved.completed();
  await active;
  for (const cut of [undefined, { direction: 'toTarget', connection: 2, after: 5, how: 'blackhole' }] as const) {
    const paused = moved.both('postcopy-paused');
    if (cut === undefined) moved.proxy.sever('end');
    else await moved.reconnect(cut);
    await paused;
  }
  assert.match(moved.incoming.info()['error-desc'] ?? '', /preempt channel/);
  await moved.reconnect();
  await run;
  await verified(destination);
});
