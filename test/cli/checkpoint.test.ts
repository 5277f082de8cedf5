import assert from 'node:assert/strict';
import { access, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'node:test';
import { ask, SMALL, Spawned, startRun, temporaryFolder } from './spawned.ts';

interface Verdict {
  readonly details: readonly string[];
}
interface Failure {
  readonly error: { readonly code: string; readonly message: string };
  readonly message: string;
}

const exists = (path: string) =>
  access(path).then(
    () => true,
    () => false,
  );

test('save, then restore into another process: the guest goes on and every page is right', async (t) => {
  const folder = await temporaryFolder(t);
  const [a, b, file] = [join(folder, 'a'), join(folder, 'b'), join(folder, 'vm.ckpt')];
  await startRun(t, a, ...SMALL);
  await ask(a, 'migrate-set-parameters', { 'max-bandwidth': 12_345_678 });
  const save = new Spawned(t, ['save', a, file, '--json']);
  const saved = await save.result(0);
  assert.ok(save.lines.some(({ type }) => type === 'progress'));
  assert.equal(saved['source'], 'postmigrate');
  assert.equal(typeof saved['downtimeMs'], 'number');
  const parameters = await ask(a, 'query-migrate-parameters');
  assert.equal(parameters['max-bandwidth'], 12_345_678, 'what the process had before is put back');
  assert.deepEqual((await readdir(folder)).sort(), ['a', 'vm.ckpt'], 'nothing beside the checkpoint');

  await startRun(t, b, ...SMALL, '--incoming', 'defer');
  const restored = await new Spawned(t, ['restore', file, b, '--json']).result(0);
  assert.equal(restored['destination'], 'running');
  const { operations } = await ask<{ operations: number }>(b, 'x-workload-status');
  assert.ok(operations > 0);
  assert.deepEqual((await ask<Verdict>(b, 'x-workload-verify')).details, []);
});

test('save --resume lets the guest run on; restore --paused does not let it run; over tcp', async (t) => {
  const folder = await temporaryFolder(t);
  const [a, b, file] = [join(folder, 'a'), join(folder, 'b'), join(folder, 'vm.ckpt')];
  const tcp = ['--uri', 'tcp:127.0.0.1:0', '--json'];
  await startRun(t, a, ...SMALL);
  assert.equal((await new Spawned(t, ['save', a, file, '--resume', ...tcp]).result(0))['source'], 'running');
  assert.deepEqual((await ask<Verdict>(a, 'x-workload-verify')).details, []);
  await startRun(t, b, ...SMALL, '--incoming', 'defer');
  assert.equal((await new Spawned(t, ['restore', file, b, '--paused', ...tcp]).result(0))['destination'], 'paused');
  const before = await ask(b, 'x-workload-status');
  assert.deepEqual((await ask<Verdict>(b, 'x-workload-verify')).details, []);
  assert.equal((await ask(b, 'x-workload-status'))['operations'], before['operations']);
});

test('receive and send: the plumbing, with QMP beside it', async (t) => {
  const folder = await temporaryFolder(t);
  const [a, b, qmp, file] = [join(folder, 'a'), join(folder, 'b'), join(folder, 'qmp'), join(folder, 'vm.ckpt')];
  await startRun(t, a, ...SMALL);
  const receive = new Spawned(t, ['receive', 'tcp:127.0.0.1:0', '--to', file, '--qmp', qmp, '--json']);
  const { uri } = await receive.line('listening');
  const info = await ask(qmp, 'query-migrate');
  const [address] = info['socket-address'] as [{ port: string }];
  assert.equal(uri, `tcp:127.0.0.1:${address.port}`);
  await new Spawned(t, ['migrate', a, String(uri), '--json', '--set', 'max-bandwidth=0']).result(0);
  const received = await receive.result(0);
  assert.ok((received['ram'] as { normal: number }).normal > 1000);

  const waiting = await startRun(t, b, ...SMALL, '--incoming', 'tcp:127.0.0.1:0');
  const to = String((await waiting.line('ready'))['uri']);
  const sent = await new Spawned(t, ['send', file, to, '--json']).result(0);
  assert.equal(sent['status'], 'completed');
  assert.equal('downtimeMs' in sent, false, 'no guest ran, so none stood still');
  assert.deepEqual((await ask<Verdict>(b, 'x-workload-verify')).details, []);
});

test('a save that is cancelled or cannot be written: no file, and the guest runs on', async (t) => {
  const folder = await temporaryFolder(t);
  const [a, file] = [join(folder, 'a'), join(folder, 'vm.ckpt')];
  await startRun(t, a, ...SMALL);
  const nowhere = await new Spawned(t, ['save', a, join(folder, 'no', 'vm.ckpt'), '--json']).result(1);
  assert.equal((nowhere as unknown as Failure).error.code, 'CHECKPOINT_IO');
  assert.equal((await ask(a, 'query-migrate'))['status'], undefined, 'the guest was not touched');

  const save = new Spawned(t, ['save', a, file, '--json', '--set', 'max-bandwidth=1M']);
  await save.line(({ status }) => status === 'active');
  save.kill('SIGTERM');
  const cancelled = await save.result(130);
  assert.equal(cancelled['status'], 'cancelled');
  assert.match((cancelled as unknown as Failure).message, /still runs on the source.*was not written/);
  assert.equal((await ask(a, 'query-status'))['status'], 'running');
  assert.deepEqual((await readdir(folder)).sort(), ['a']);
});

test('the manager of the source cancels a save: status 1, and the message says where the guest is', async (t) => {
  const folder = await temporaryFolder(t);
  const [a, file] = [join(folder, 'a'), join(folder, 'vm.ckpt')];
  await startRun(t, a, ...SMALL);
  const save = new Spawned(t, ['save', a, file, '--json', '--set', 'max-bandwidth=1M']);
  await save.line(({ status }) => status === 'active');
  await ask(a, 'migrate_cancel');
  const result = await save.result(1);
  assert.deepEqual([result['status'], result['source']], ['cancelled', 'running']);
  assert.equal(await exists(file), false);
});

test('a killed save leaves nothing that looks whole, and the guest running', async (t) => {
  const folder = await temporaryFolder(t);
  const [a, file] = [join(folder, 'a'), join(folder, 'vm.ckpt')];
  await startRun(t, a, ...SMALL);
  const save = new Spawned(t, ['save', a, file, '--json', '--set', 'max-bandwidth=1M']);
  await save.line(({ status }) => status === 'active');
  save.kill('SIGKILL');
  assert.equal(await save.exited, 'SIGKILL');
  assert.equal(await exists(file), false);
  // The source sees its channel break.
  for (let left = 100; (await ask(a, 'query-migrate'))['status'] !== 'failed'; left--) assert.ok(left > 0);
  assert.equal((await ask(a, 'query-status'))['status'], 'running');
});

test('restore refuses what cannot work, and says why', async (t) => {
  const folder = await temporaryFolder(t);
  const [a, b, c, file] = [join(folder, 'a'), join(folder, 'b'), join(folder, 'c'), join(folder, 'vm.ckpt')];
  await startRun(t, a, ...SMALL);
  await new Spawned(t, ['save', a, file, '--json']).result(0);
  const code = async (...args: string[]) =>
    ((await new Spawned(t, ['restore', ...args, '--json']).result(1)) as unknown as Failure).error.code;
  assert.equal(await code(file, a), 'PEER_STATE');
  assert.equal(await code(join(folder, 'none'), a), 'CHECKPOINT_IO');
  await writeFile(join(folder, 'text'), 'not a checkpoint at all');
  assert.match(await code(join(folder, 'text'), a), /^WIRE_/);
  // Another machine: the destination says what does not fit, and ends as it would by itself.
  const other = await startRun(t, b, '--ram', '32M', '--incoming', 'defer');
  const mismatch = (await new Spawned(t, ['restore', file, b, '--json']).result(1)) as unknown as Failure;
  assert.match(mismatch.error.message, /workload\.ram/);
  assert.equal(await other.exited, 0, 'told to quit, since the driver had asked it to stay');
  const old = await startRun(t, c, ...SMALL, '--machine', 'workload-7.2', '--incoming', 'defer');
  const type = (await new Spawned(t, ['restore', file, c, '--json']).result(1)) as unknown as Failure;
  assert.match(type.error.message, /machine type.*workload-7\.2.*workload-11\.1/);
  await old.exited;
});
