/** TLS as people ask for it: a folder for whole jobs, objects for the plumbing. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import test, { after } from 'node:test';
import { HOST, TlsFolders } from '../support/tls-folders.ts';
import { ask, SMALL, Spawned, startRun, temporaryFolder } from './spawned.ts';

const folders = new TlsFolders();
after(() => folders.close());

const psk = folders.psk('psk');
const x509 = folders.x509('x509');

const WAYS: readonly [string, readonly string[]][] = [
  ['--tls-psk', ['--tls-psk', psk]],
  ['--tls-creds over tcp', ['--tls-creds', x509, '--uri', 'tcp:127.0.0.1:0']],
  ['--tls-creds over a unix socket', ['--tls-creds', x509, '--tls-hostname', HOST]],
];

for (const [name, options] of WAYS) {
  test(`save and restore: ${name}`, async (t) => {
    const folder = await temporaryFolder(t);
    const [a, b, file] = [join(folder, 'a'), join(folder, 'b'), join(folder, 'vm.ckpt')];
    await startRun(t, a, ...SMALL);
    await new Spawned(t, ['save', a, file, '--json', ...options]).result(0);
    assert.deepEqual(await tlsOf(a), ['', ''], 'what the process had before is put back');
    await startRun(t, b, ...SMALL, '--incoming', 'defer');
    const restored = await new Spawned(t, ['restore', file, b, '--json', ...options]).result(0);
    assert.equal(restored['destination'], 'running');
    assert.deepEqual(await tlsOf(b), ['', '']);
    // Declared for the job alone.
    await assert.rejects(ask(b, 'object-del', { id: 'vmferry-tls0' }), /not found/);
    assert.deepEqual((await ask<{ details: string[] }>(b, 'x-workload-verify')).details, []);
  });
}

async function tlsOf(qmp: string): Promise<unknown[]> {
  const parameters = await ask(qmp, 'query-migrate-parameters');
  return [parameters['tls-creds'], parameters['tls-hostname']];
}

test('a unix socket has no name that a certificate could carry', async (t) => {
  const folder = await temporaryFolder(t);
  const [a, file] = [join(folder, 'a'), join(folder, 'vm.ckpt')];
  await startRun(t, a, ...SMALL);
  const failed = await new Spawned(t, ['save', a, file, '--json', '--tls-creds', x509]).result(1);
  assert.match(JSON.stringify(failed['error']), /No hostname available for TLS/);
  assert.equal(failed['source'], 'running');
});

const object = (kind: string, endpoint: string, dir: string) => `${kind},id=tls0,endpoint=${endpoint},dir=${dir}`;

test('objects on both sides, and who must not get in is turned away until the right one comes', async (t) => {
  const folder = await temporaryFolder(t);
  const [a, b] = [join(folder, 'a'), join(folder, 'b')];
  const named = ['--set', 'tls-creds=tls0', '--set', 'multifd=on', '--set', 'max-bandwidth=0'];
  const source = await startRun(t, a, ...SMALL, ...named, '--object', object('tls-creds-psk', 'client', psk));
  const to = ['--incoming', 'tcp:127.0.0.1:0', '--object', object('tls-creds-psk', 'server', psk)];
  const destination = await startRun(t, b, ...SMALL, ...named, ...to);
  const { uri } = await destination.line('ready');

  await ask(a, 'migrate-set-parameters', { 'tls-creds': 'tls1' });
  await assert.rejects(ask(a, 'migrate', { uri }), /No TLS credentials with id 'tls1'/);
  const other = folders.psk('other', true);
  const wrong = { 'qom-type': 'tls-creds-psk', id: 'tls1', endpoint: 'client', dir: other };
  await ask(a, 'object-add', { ...wrong, endpoint: 'server' });
  await assert.rejects(ask(a, 'migrate', { uri }), /Expected TLS credentials for a client endpoint/);
  await ask(a, 'object-del', { id: 'tls1' });
  await ask(a, 'object-add', wrong);
  await ask(a, 'migrate', { uri });
  const refused = await ended(a);
  assert.equal(refused['status'], 'failed');
  assert.match(String(refused['error-desc']), /TLS: /);
  const waiting = await ask(b, 'query-migrate');
  assert.equal(waiting['status'], 'setup');
  assert.match(String(waiting['x-waiting-for']), /1 turned away, the last because of: .*TLS/);

  await ask(a, 'migrate-set-parameters', { 'tls-creds': 'tls0' });
  await ask(a, 'migrate', { uri });
  assert.equal((await ended(a))['status'], 'completed');
  assert.deepEqual((await ask<{ details: string[] }>(b, 'x-workload-verify')).details, []);
  assert.doesNotMatch(source.stderr + destination.stderr, /WARNING/);
});

async function ended(qmp: string): Promise<Record<string, unknown>> {
  const deadline = performance.now() + 60_000;
  for (;;) {
    const info = await ask(qmp, 'query-migrate');
    if (['completed', 'failed'].includes(String(info['status']))) return info;
    assert(performance.now() < deadline, `the migration is ${String(info['status'])} still`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const REFUSED: readonly [readonly string[], number, RegExp][] = [
  [['--tls-creds', '/nowhere'], 1, /\/nowhere\/ca-cert\.pem: is not there/],
  [['--tls-creds', x509, '--tls-psk', psk], 2, /cannot be used with/],
  [['--object', 'tls-creds-psk,id=a'], 2, /'dir'/],
  [['--set', 'tls-creds=tls0'], 1, /No TLS credentials with id 'tls0'/],
];

for (const [options, status, why] of REFUSED) {
  test(`refused: ${options.join(' ')}`, async (t) => {
    const folder = await temporaryFolder(t);
    const command = new Spawned(t, ['receive', 'tcp:127.0.0.1:0', '--to', join(folder, 'vm.ckpt'), ...options]);
    assert.equal(await command.exited, status);
    assert.match(command.stdout + command.stderr, why);
  });
}
