/** `migrate --postcopy` and `restore --postcopy` between processes, and what a process can be asked meanwhile. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { ask, SMALL, Spawned, startRun, temporaryFolder } from './spawned.ts';

const LIMITS = ['max-bandwidth=8M', 'downtime-limit=1', 'max-postcopy-bandwidth=3M'].flatMap((one) => ['--set', one]);

async function processes(t: TestContext, ...args: string[]): Promise<readonly [string, string]> {
  const folder = await temporaryFolder(t);
  const [a, b] = [join(folder, 'a'), join(folder, 'b')];
  await startRun(t, a, ...SMALL, ...args);
  await startRun(t, b, ...SMALL, ...args, '--incoming', 'defer');
  return [a, b];
}

for (const { pages, options } of [
  { pages: '4K', options: ['--postcopy'] },
  { pages: '2M', options: ['--postcopy=0', '--set', 'postcopy-preempt=on', '--set', 'postcopy-blocktime=on'] },
]) {
  test(`migrate ${options.join(' ')}, pages of ${pages}: the connection is given up on the way and made anew`, async (t) => {
    const [a, b] = await processes(t, '--host-page', pages);
    const migrate = new Spawned(t, ['migrate', a, b, '--json', ...LIMITS, ...options]);
    await migrate.line(({ status }) => status === 'postcopy-active');
    await assert.rejects(ask(b, 'x-workload-verify'), /cannot be verified while it migrates \(postcopy-active\)/);
    await ask(a, 'migrate-pause');
    await migrate.line('notice');
    await ask(a, 'migrate-set-parameters', { 'max-postcopy-bandwidth': 0 });
    const result = await migrate.result(0);
    assert.deepEqual([result['source'], result['destination']], ['postmigrate', 'running']);
    const info = await ask(b, 'query-migrate');
    assert.equal(info['status'], 'completed');
    assert.equal('postcopy-latency' in info, options.includes('postcopy-blocktime=on'));
    assert.deepEqual((await ask<{ details: readonly string[] }>(b, 'x-workload-verify')).details, []);
    await assert.rejects(ask(b, 'migrate-recover', { uri: 'tcp:127.0.0.1:0' }), /all of its memory.*can be ended/);
  });
}

test('restore --postcopy: the connection is given up on the way and made anew', async (t) => {
  const [a, b] = await processes(t);
  const file = `${a}.ckpt`;
  await new Spawned(t, ['save', a, file, '--json']).result(0);
  const restore = new Spawned(t, ['restore', file, b, '--json', '--postcopy', '--set', 'max-postcopy-bandwidth=8M']);
  await restore.line(({ status }) => status === 'postcopy-active');
  await ask(b, 'migrate-pause');
  assert.match(String((await restore.line('notice'))['text']), /making another one/);
  assert.equal((await restore.result(0))['destination'], 'running');
  assert.deepEqual((await ask<{ details: readonly string[] }>(b, 'x-workload-verify')).details, []);
});

test('restore --postcopy, given up and the connection lost: a guest without all of its memory is no success', async (t) => {
  const [a, b] = await processes(t);
  const file = `${a}.ckpt`;
  await new Spawned(t, ['save', a, file, '--json']).result(0);
  const restore = new Spawned(t, ['restore', file, b, '--json', '--postcopy', '--set', 'max-postcopy-bandwidth=1M']);
  await restore.line(({ status }) => status === 'postcopy-active');
  restore.kill('SIGINT');
  await restore.line('interrupted');
  await ask(b, 'migrate-pause');
  const result = await restore.result(130);
  assert.equal(result['destination'], 'running');
  assert.match(String(result['message']), /without the part of its memory.*restore it into another one/);
});

test('Ctrl-C before the switchover leaves the guest where it is', async (t) => {
  const [a, b] = await processes(t);
  const migrate = new Spawned(t, ['migrate', a, b, '--json', ...LIMITS, '--postcopy=1000']);
  await migrate.line(({ type, status }) => type === 'progress' && status === 'active');
  migrate.kill('SIGINT');
  assert.equal((await migrate.result(130))['source'], 'running');
});

test('Ctrl-C behind it does not: the migration goes on to its end', async (t) => {
  const [a, b] = await processes(t);
  const migrate = new Spawned(t, ['migrate', a, b, '--json', ...LIMITS, '--postcopy=0']);
  await migrate.line(({ status }) => status === 'postcopy-active');
  migrate.kill('SIGINT');
  assert.match(String((await migrate.line('notice'))['text']), /cannot be taken back/);
  await ask(a, 'migrate-set-parameters', { 'max-postcopy-bandwidth': 0 });
  assert.equal((await migrate.result(0))['destination'], 'running');
});
