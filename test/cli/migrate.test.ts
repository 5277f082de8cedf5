import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'node:test';
import { ask, SMALL, Spawned, startRun, TEMPORARY, temporaryFolder } from './spawned.ts';

interface Verdict {
  readonly verified: boolean;
  readonly details: readonly string[];
}

async function threadNames(qmp: string): Promise<string[]> {
  return (await ask<{ name: string }[]>(qmp, 'query-migrationthreads')).map(({ name }) => name);
}

test('demo moves a machine to and fro, verifies it, and leaves nothing behind', async (t) => {
  const demo = new Spawned(t, ['demo', ...SMALL, '--rounds', '2', '--json']);
  const result = await demo.result(0);
  assert.equal(result['status'], 'completed');
  assert.equal(result['migrations'], 2);
  assert.equal((result['verification'] as Verdict).verified, true);
  assert.equal(typeof result['guestDowntimeMs'], 'number');
  assert.equal(demo.lines.filter(({ type }) => type === 'migration').length, 2);
  assert.deepEqual(await readdir(TEMPORARY), []);
});

test('demo with VFs, on channels and without: what each of them did, in ms since the guest stopped', async (t) => {
  for (const channels of ['2', '0']) {
    const vfs = ['--vf', '2,state-size=4M', '--vf-preset', 'small', '--channels', channels];
    const demo = new Spawned(t, ['demo', ...SMALL, ...vfs, '--json']);
    const result = (await demo.result(0)) as unknown as {
      readonly verification: { readonly verified: boolean; readonly 'devices-checked': number };
      readonly devices: Facts;
    };
    assert.deepEqual([result.verification.verified, result.verification['devices-checked']], [true, 2]);
    const { devices, parts, downtimeMs } = result.devices;
    assert.ok(Math.abs(Object.values(parts).reduce((sum, ms) => sum + ms, 0) - downtimeMs) < 0.1);
    assert.deepEqual(
      devices.map(({ stateBytes }) => stateBytes > 4 * 1024 ** 2),
      [true, true],
    );
    for (const { spans, transfer, initialBytes } of devices) {
      assert.ok(initialBytes > 0);
      const kinds = new Map(spans.map((span) => [span.kind, span]));
      for (const kind of ['precopy', 'preload', 'stop', 'save', 'send', 'receive', 'load', 'config', 'start'])
        assert.ok(kinds.has(kind), kind);
      const [save, load] = [kinds.get('save')!, kinds.get('load')!];
      assert.ok(kinds.get('stop')!.startMs >= 0 && kinds.get('precopy')!.startMs < 0);
      assert.ok(transfer.startMs >= save.startMs && load.startMs >= transfer.startMs, 'saved, sent, loaded');
      assert.ok(kinds.get('config')!.startMs >= load.endMs, 'the configuration behind the state');
      assert.equal(load.bytes, save.bytes, 'all that was saved was loaded');
      assert.ok(kinds.get('start')!.endMs <= downtimeMs + 0.001);
    }
  }
});

interface Facts {
  readonly downtimeMs: number;
  readonly parts: Readonly<Record<string, number>>;
  readonly devices: readonly {
    readonly stateBytes: number;
    readonly initialBytes: number;
    readonly transfer: { readonly startMs: number; readonly endMs: number };
    readonly spans: readonly {
      readonly kind: string;
      readonly startMs: number;
      readonly endMs: number;
      readonly bytes: number;
    }[];
  }[];
}

test('demo for people: a table on standard output, progress on standard error', async (t) => {
  const demo = new Spawned(t, ['demo', ...SMALL]);
  assert.equal(await demo.exited, 0, demo.stderr);
  assert.match(demo.stdout, /verification +all [\d,]+ pages and the registers are right/);
  assert.match(demo.stdout, /^ {2}downtime +\d+/m);
  assert.match(demo.stderr, /^\[[#-]+\]/m);
});

test('migrate: progress lines, then a result with the figures of query-migrate; the guest is verified where it arrived', async (t) => {
  const folder = await temporaryFolder(t);
  const [a, b] = [join(folder, 'a'), join(folder, 'b')];
  await startRun(t, a, ...SMALL);
  await startRun(t, b, ...SMALL, '--incoming', 'defer');
  const migrate = new Spawned(t, ['migrate', a, b, '--json', '--set', 'max-bandwidth=100M']);
  const result = await migrate.result(0);
  assert.ok(migrate.lines.some(({ type, status }) => type === 'progress' && status === 'active'));
  const info = await ask(a, 'query-migrate');
  assert.equal(result['totalTimeMs'], info['total-time']);
  assert.equal(result['downtimeMs'], info['downtime']);
  assert.deepEqual(result['ram'], info['ram']);
  assert.deepEqual([result['source'], result['destination']], ['postmigrate', 'running']);
  assert.deepEqual((await ask<Verdict>(b, 'x-workload-verify')).details, []);
  assert.equal((await ask(b, 'query-status'))['status'], 'running', 'verification sets it running again');
  const again = new Spawned(t, ['migrate', a, b, '--json']);
  assert.equal(((await again.result(1))['error'] as { code: string }).code, 'PEER_STATE');
});

test('migrate --set multifd=on sets both ends; the channels show as threads while it runs, and are gone after', async (t) => {
  const folder = await temporaryFolder(t);
  const [a, b] = [join(folder, 'a'), join(folder, 'b')];
  await startRun(t, a, ...SMALL);
  await startRun(t, b, ...SMALL, '--incoming', 'defer');
  const settings = [
    'multifd=on',
    'multifd-channels=3',
    'multifd-compression=zlib',
    'max-bandwidth=1M',
    'downtime-limit=1',
  ];
  const migrate = new Spawned(t, ['migrate', a, b, '--json', ...settings.flatMap((one) => ['--set', one])]);
  await migrate.line(({ type, status }) => type === 'progress' && status === 'active');
  assert.deepEqual(await threadNames(a), ['mig/src/send_0', 'mig/src/send_1', 'mig/src/send_2']);
  // The destination starts its threads when it has read the block list.
  for (const deadline = performance.now() + 20_000; (await threadNames(b)).length < 3; )
    assert.ok(performance.now() < deadline, 'still no threads at the destination');
  assert.deepEqual(await threadNames(b), ['mig/dst/recv_0', 'mig/dst/recv_1', 'mig/dst/recv_2']);
  await ask(a, 'migrate-set-parameters', { 'max-bandwidth': 0, 'downtime-limit': 30_000 });
  const result = await migrate.result(0);
  assert.deepEqual([result['source'], result['destination']], ['postmigrate', 'running']);
  assert.ok((result['ram'] as Record<string, number>)['multifd-bytes']! > 0);
  for (const path of [a, b]) assert.deepEqual(await threadNames(path), []);
  assert.deepEqual((await ask<Verdict>(b, 'x-workload-verify')).details, []);
});

test('migrate to a URI, and to a tcp port that the destination chooses', async (t) => {
  const folder = await temporaryFolder(t);
  const [a, b, c] = [join(folder, 'a'), join(folder, 'b'), join(folder, 'c')];
  await startRun(t, a, ...SMALL);
  const second = await startRun(t, b, ...SMALL, '--incoming', 'tcp:127.0.0.1:0');
  const { uri } = await second.line('ready');
  assert.match(String(uri), /^tcp:127\.0\.0\.1:[1-9]\d*$/);
  await new Spawned(t, ['migrate', a, String(uri), '--json', '--set', 'max-bandwidth=0']).result(0);
  await startRun(t, c, ...SMALL, '--incoming', 'defer');
  await new Spawned(t, ['migrate', b, c, '--uri', 'tcp:127.0.0.1:0', '--json', '--set', 'max-bandwidth=0']).result(0);
  assert.equal((await ask<Verdict>(c, 'x-workload-verify')).verified, true);
});

test('nobody there: status 1, and the guest runs', async (t) => {
  const folder = await temporaryFolder(t);
  const a = join(folder, 'a');
  await startRun(t, a, ...SMALL);
  const result = await new Spawned(t, ['migrate', a, `unix:${join(folder, 'nobody')}`, '--json']).result(1);
  assert.equal(result['status'], 'failed');
  assert.equal(result['source'], 'running');
  assert.match(String(result['message']), /The guest still runs on the source/);
  assert.equal((await ask(a, 'query-status'))['status'], 'running');
  const noQmp = await new Spawned(t, ['migrate', join(folder, 'no-qmp'), a, '--json']).result(1);
  assert.equal((noQmp['error'] as { code: string }).code, 'QMP_CONNECT_FAILED');
});

test('Ctrl-C cancels: status 130, the guest runs on the source, the destination is free of it', async (t) => {
  const folder = await temporaryFolder(t);
  const [a, b] = [join(folder, 'a'), join(folder, 'b')];
  await startRun(t, a, ...SMALL);
  await startRun(t, b, ...SMALL, '--incoming', 'defer');
  const migrate = new Spawned(t, ['migrate', a, b, '--json', '--set', 'max-bandwidth=1M']);
  await migrate.line(({ status }) => status === 'active');
  migrate.kill('SIGINT');
  const result = await migrate.result(130);
  assert.equal(result['status'], 'cancelled');
  assert.equal(result['source'], 'running');
  assert.match(String(result['message']), /The guest still runs on the source/);
  assert.equal((await ask(a, 'query-status'))['status'], 'running');
  assert.equal((await ask<Verdict>(a, 'x-workload-verify')).verified, true);
});

test('run: quit ends it with 0, a signal with 130, a migration that fails to arrive with 1 and the reason', async (t) => {
  const folder = await temporaryFolder(t);
  const quitting = await startRun(t, join(folder, 'a'), ...SMALL);
  await ask(join(folder, 'a'), 'quit');
  assert.equal((await quitting.result(0))['status'], 'completed');
  const ended = await startRun(t, join(folder, 'b'), ...SMALL);
  ended.kill('SIGTERM');
  assert.equal((await ended.result(130))['status'], 'cancelled');
  const waiting = await startRun(t, join(folder, 'c'), ...SMALL, '--incoming', 'exec:echo nonsense');
  const { error } = (await waiting.result(1)) as unknown as { error: { message: string } };
  assert.match(error.message, /magic|header|expected/i);
});

test('a run process started paused waits for cont', async (t) => {
  const qmp = join(await temporaryFolder(t), 'a');
  await startRun(t, qmp, ...SMALL, '--paused');
  assert.deepEqual(await ask(qmp, 'query-status'), { running: false, status: 'prelaunch' });
  assert.equal((await ask(qmp, 'x-workload-status'))['operations'], 0);
  await ask(qmp, 'cont');
  assert.equal((await ask(qmp, 'query-status'))['running'], true);
});

test('two vmferry ends are told to shake hands for one migration, and it is put back: the next peer may be another', async (t) => {
  const folder = await temporaryFolder(t);
  const [a, b] = [join(folder, 'a'), join(folder, 'b')];
  await startRun(t, a, ...SMALL, '--set', 'max-bandwidth=0');
  await startRun(t, b, ...SMALL, '--incoming', 'defer', '--set', 'max-bandwidth=0');
  await new Spawned(t, ['migrate', a, b, '--json']).result(0);
  for (const qmp of [a, b]) {
    const list = await ask<{ capability: string; state: boolean }[]>(qmp, 'query-migrate-capabilities');
    assert.equal(list.find(({ capability }) => capability === 'x-vmferry-handshake')?.state, false);
  }
  await new Spawned(t, ['save', b, join(folder, 'ckpt'), '--json']).result(0);
});

test('two vmferry ends that were told different things: check says what they would settle at, migrate says what they have', async (t) => {
  const folder = await temporaryFolder(t);
  const [a, b, c] = [join(folder, 'a'), join(folder, 'b'), join(folder, 'c')];
  const vf = '1,state-size=4M,working-set=1M,dma-size=1M';
  const four = ['--set', 'multifd=on', '--set', 'multifd-channels=4'];
  await startRun(t, a, ...SMALL, '--vf', vf, ...four, '--set', 'max-bandwidth=0');
  const waiting = [...SMALL, '--vf', vf, '--incoming', 'defer'];
  await startRun(t, b, ...waiting, '--set', 'multifd=on', '--set', 'multifd-channels=3');
  await startRun(
    t,
    c,
    ...waiting,
    '--set',
    'multifd=off',
    '--set',
    'x-handshake-insist=on',
    '--set',
    'postcopy-ram=on',
  );
  const settled = { name: 'multifd-channels', value: '3', source: '4', destination: '3' };
  const checked = await new Spawned(t, ['check', a, b, '--json']).result(0);
  const warned = (checked['findings'] as { rule: string; verdict: string; reason: string }[]).filter(
    ({ rule }) => rule === 'settled',
  );
  assert.deepEqual(warned, [
    {
      rule: 'settled',
      verdict: 'warn',
      reason: 'multifd-channels is 4 at the source, 3 at the destination: settled at 3',
    },
  ]);
  // What it has it insists on: off is less than nothing.
  assert.equal((await new Spawned(t, ['check', a, c, '--json']).result(0))['status'], 'completed');
  const refused = await new Spawned(t, ['migrate', a, b, '--json', '--uri', 'exec:cat']).result(1);
  assert.match((refused['error'] as { message: string }).message, /multifd-channels is 4 at the source, 3 at/);
  const moved = await new Spawned(t, ['migrate', a, b, '--json']).result(0);
  assert.deepEqual(moved['handshake'], { settled: [settled], warnings: [`settled: ${warned[0]!.reason}`] });
  const there = await ask<{ 'x-handshake': unknown }>(b, 'query-migrate');
  assert.deepEqual(there['x-handshake'], moved['handshake']);
  assert.equal((await ask<Verdict>(b, 'x-workload-verify')).verified, true);
  const parameters = await ask<Record<string, unknown>>(b, 'query-migrate-parameters');
  assert.equal(parameters['multifd-channels'], 3, 'settled for that migration only');
});
