/** Multifd that does not go well, or shall not: cancelled, refused, mismatched, held to a limit. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import test, { type TestContext } from 'node:test';
import { explain } from '../../src/base/index.ts';
import { createWorkload, type WorkloadMachine, type WorkloadOptions } from '../../src/machine/index.ts';
import { VmHost } from '../../src/migration/index.ts';
import type { Settings } from '../../src/settings/index.ts';
import { census, expectCensus } from '../campaign/census.ts';
import { until } from '../dataplane/held-link.ts';
import { assertCompleted } from '../support/completed.ts';
import { memoryPair } from '../support/memory-channel.ts';
import { move, testSettings } from '../support/move.ts';
import { type MoveOverOptions, moveOver } from '../support/move-over.ts';
import { verified } from '../support/workload-pair.ts';

const MIB = 1024 * 1024;
/** A migration that is cancelled has no excuse, but the machine may be busy, ms. */
const PROMPT_MS = 5_000;

type Values = Parameters<Settings['setParameters']>[0];

async function machine(t: TestContext, options: Partial<WorkloadOptions>): Promise<WorkloadMachine> {
  const made = await createWorkload({ ram: 16 * MIB, vcpus: 1, dirtyRate: 4e6, seed: 3, ...options });
  t.after(() => made.dispose());
  return made;
}

async function machines(t: TestContext, options: Partial<WorkloadOptions> = {}) {
  const source = await machine(t, options);
  await source.resume();
  return { source, destination: await machine(t, { ...options, incoming: true }) };
}

/** A migration that ends with the test, however that ends. */
async function start(t: TestContext, options: MoveOverOptions) {
  const moved = await moveOver(options);
  t.after(async () => {
    if (!OVER.has(moved.outgoing.status)) moved.outgoing.cancel();
    moved.incoming.cancel();
    moved.listener.close();
    await moved.ended;
  });
  return moved;
}

const OVER: ReadonlySet<string> = new Set(['completed', 'failed', 'cancelled']);

function multifd(values: Values = {}): Settings {
  return testSettings((settings) => {
    settings.setCapabilities([{ capability: 'multifd', state: true }]);
    settings.setParameters(values);
  });
}

/** Names of this process's threads, as the system has them. */
function threadNames(): string[] {
  return readdirSync('/proc/self/task').flatMap((id) => {
    try {
      return [readFileSync(`/proc/self/task/${id}/comm`, 'utf8').trim()];
    } catch {
      return [];
    }
  });
}

test('sixteen channels, cancelled; and at once to another address', async (t) => {
  const { source, destination } = await machines(t);
  const elsewhere = await machine(t, { incoming: true });
  const slow = multifd({ 'multifd-channels': 16, 'max-bandwidth': 5e6, 'downtime-limit': 1 });
  const first = await start(t, { source, destination, settings: slow });
  await until(() => first.incoming.threads.length > 0, 'the destination to have its channels');
  await until(() => (first.outgoing.info().ram?.['multifd-bytes'] ?? 0) > MIB, 'some pages');
  assert.deepEqual(
    first.outgoing.threads.map(({ name }) => name),
    Array.from({ length: 16 }, (_, channel) => `mig/src/send_${channel}`),
  );
  assert.deepEqual(
    first.incoming.threads.map(({ name }) => name),
    Array.from({ length: 16 }, (_, channel) => `mig/dst/recv_${channel}`),
  );
  // The system shows them by the same names and numbers; it cuts names at 15 bytes.
  const seen = threadNames();
  assert.equal(seen.filter((name) => name.startsWith('mig/src/send_')).length, 16);
  for (const { threadId } of first.outgoing.threads) assert.ok(readdirSync('/proc/self/task').includes(`${threadId}`));

  const startedMs = performance.now();
  first.outgoing.cancel();
  const ended = await first.ended;
  assert.ok(performance.now() - startedMs < PROMPT_MS);
  assert.equal(ended.source.status, 'cancelled');
  assert.equal(ended.destination.status, 'failed');
  assert.equal(source.runState, 'running');
  assert.equal(destination.runState, 'inmigrate');
  assert.deepEqual([first.outgoing.threads, first.incoming.threads], [[], []], 'all threads are joined');

  const second = await start(t, { source, destination: elsewhere, settings: multifd({ 'multifd-channels': 16 }) });
  const { source: sent } = await second.ended;
  assertCompleted(sent);
  await verified(elsewhere);
});

test('cancelled in any moment of the setup: nothing is left', async (t) => {
  const { source, destination } = await machines(t);
  const settings = multifd({ 'multifd-channels': 4 });
  const whole = await start(t, { source, destination, settings });
  await whole.ended;
  await source.awaitIncoming();
  const before = await census();
  let [from, to] = [destination, source];
  for (let turns = 0; turns < 12; turns++) {
    const moved = await start(t, { source: from, destination: to, settings });
    // After so many turns of the event loop, each connection, thread and message one or more of them.
    for (let turn = 0; turn < turns * 4 && moved.outgoing.status === 'setup'; turn++) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    try {
      moved.outgoing.cancel();
    } catch {
      // It was handed over already.
    }
    // A destination to which nobody has come, or not everybody yet, waits on.
    if (moved.incoming.status === 'setup') moved.incoming.cancel();
    const { source: sent } = await moved.ended;
    if (sent.status === 'completed') {
      [from, to] = [to, from];
      await to.awaitIncoming();
    } else {
      assert.equal(from.runState, 'running');
      assert.equal(to.runState, 'inmigrate');
    }
    await expectCensus(before);
  }
});

const MISMATCHES: readonly [what: string, here: Settings, there: Settings, message: RegExp][] = [
  [
    'compression',
    multifd({ 'multifd-compression': 'zstd' }),
    multifd(),
    /multifd \d: offset \d+: packet.*compression.*none.*zstd/,
  ],
  [
    'no multifd there',
    multifd(),
    testSettings(),
    /\| multifd \d.*(does not take this channel: are multifd and multifd-channels the same|connection lost)/,
  ],
  [
    'more channels come than are awaited',
    multifd({ 'multifd-channels': 4 }),
    multifd({ 'multifd-channels': 2 }),
    /channel id.*: expected below 2, found \d|multifd \d.*(does not take this channel|connection lost)/,
  ],
];

for (const [what, here, there, message] of MISMATCHES) {
  test(`settings that differ (${what}) are refused promptly, and the guest runs on`, async (t) => {
    const { source, destination } = await machines(t);
    const startedMs = performance.now();
    const moved = await start(t, { source, destination, settings: here, destinationSettings: there });
    const ended = await moved.ended;
    assert.ok(performance.now() - startedMs < PROMPT_MS);
    assert(ended.source.status === 'failed' && ended.destination.error !== undefined);
    console.log(`${explain(ended.destination.error)} | ${explain(ended.source.error)}`);
    assert.match(`${explain(ended.destination.error)} | ${explain(ended.source.error)}`, message);
    assert.equal(source.runState, 'running');
    assert.equal(destination.runState, 'inmigrate');
  });
}

test('max-bandwidth holds for all channels together, and may change while it runs', async (t) => {
  const { source, destination } = await machines(t, { ram: 64 * MIB, dirtyRate: 1000 });
  const settings = multifd({ 'multifd-channels': 4, 'max-bandwidth': 20e6 });
  const moved = await start(t, { source, destination, settings });
  const sent = () => moved.outgoing.info().ram?.transferred ?? 0;
  await until(() => sent() > 2 * MIB, 'the first pages');
  const [fromMs, from] = [performance.now(), sent()];
  await until(() => performance.now() - fromMs > 1000, 'a second');
  const rate = ((sent() - from) * 1000) / (performance.now() - fromMs);
  // A busy machine may send less; more than a piece for each queue is too much.
  assert.ok(rate < 26e6, `${rate} bytes/s`);
  assert.ok(rate > 5e6, `${rate} bytes/s`);
  settings.setParameters({ 'max-bandwidth': 0 });
  const { source: result } = await moved.ended;
  assert.equal(result.status, 'completed');
  await verified(destination);
});

test('a single connection cannot carry it', async (t) => {
  const { source, destination } = await machines(t);
  const { source: result } = await move({ source, destination, channels: memoryPair(), settings: multifd() }).ended;
  assert(result.status === 'failed');
  assert.match(explain(result.error), /multifd over a single connection is not supported/);
  assert.equal(source.runState, 'running');
});

for (const uri of ['exec:cat > /dev/null', 'fd:3', 'file:/nonexistent/x']) {
  test(`migrate and migrate-incoming refuse multifd over ${uri} by name`, async (t) => {
    const settings = multifd();
    const source = await machine(t, {});
    const host = new VmHost({ name: 'a', machine: source, settings, quit: async () => {} });
    await assert.rejects(host.migrate(uri), /multifd over (exec|fd|file): \(it needs tcp: or unix:\) is not supported/);
    const destination = await machine(t, { incoming: true });
    const other = new VmHost({ name: 'b', machine: destination, settings, quit: async () => {} });
    await assert.rejects(other.migrateIncoming(uri), /multifd over (exec|fd|file): \(it needs/);
    assert.deepEqual([host.queryMigrate(), other.queryMigrate()], [{}, {}]);
  });
}
