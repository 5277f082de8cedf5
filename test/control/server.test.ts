import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, lstatSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import test from 'node:test';
import { FerryError } from '../../src/base/index.ts';
import { QmpServer } from '../../src/control/index.ts';
import { FakeHost } from './fake-host.ts';
import { RawClient } from './raw-client.ts';
import { withServer } from './with-server.ts';

function listenRefused(error: unknown, message: RegExp): true {
  assert(error instanceof FerryError);
  assert.equal(error.code, 'QMP_LISTEN');
  assert.match(error.message, message);
  return true;
}

test('only the owner may open the socket, and it is gone after close', () =>
  withServer(async ({ host, server, path }) => {
    assert.equal(lstatSync(path).mode & 0o777, 0o600);
    assert.equal(host.listeners, 1);
    await server.close();
    await server.close();
    assert.equal(existsSync(path), false);
    assert.equal(host.listeners, 0);
  }));

test('the socket of a process that was killed is replaced, that of a living one is not', () =>
  withServer(async ({ host, folder, path }) => {
    await assert.rejects(QmpServer.listen({ host, address: { kind: 'unix', path } }), (error) =>
      listenRefused(error, /another process listens/),
    );
    const stale = join(folder, 'stale.sock');
    const script = join(folder, 'killed.mjs');
    writeFileSync(
      script,
      `import net from 'node:net'; net.createServer().listen(process.argv[2], () => process.send('up'));`,
    );
    const child = fork(script, [stale]);
    await once(child, 'message');
    child.kill('SIGKILL');
    await once(child, 'exit');
    assert.ok(existsSync(stale), 'the killed process left its socket');
    const server = await QmpServer.listen({ host, address: { kind: 'unix', path: stale } });
    assert.equal(lstatSync(stale).mode & 0o777, 0o600);
    await RawClient.negotiated(stale);
    await server.close();
  }));

test('a file that is no socket is never touched, a folder that is not there is named', () =>
  withServer(async ({ host, folder }) => {
    const file = join(folder, 'precious');
    writeFileSync(file, 'data');
    await assert.rejects(QmpServer.listen({ host, address: { kind: 'unix', path: file } }), (error) =>
      listenRefused(error, /not a socket/),
    );
    assert.ok(existsSync(file));
    await assert.rejects(
      QmpServer.listen({ host, address: { kind: 'unix', path: join(folder, 'no/qmp.sock') } }),
      (error) => listenRefused(error, /no\/qmp\.sock/),
    );
  }));

test('tcp: loopback only, and the real port is told', async () => {
  const host = new FakeHost();
  const server = await QmpServer.listen({ host, address: { kind: 'tcp', host: '127.0.0.1', port: 0 } });
  try {
    assert(server.address.kind === 'tcp' && server.address.port > 0);
    const { port } = server.address;
    await assert.rejects(QmpServer.listen({ host, address: { kind: 'tcp', host: '127.0.0.1', port } }), (error) =>
      listenRefused(error, /EADDRINUSE/),
    );
  } finally {
    await server.close();
  }
  for (const outside of ['0.0.0.0', '::', '192.0.2.1', 'example.org', '127.evil.example']) {
    await assert.rejects(QmpServer.listen({ host, address: { kind: 'tcp', host: outside, port: 0 } }), (error) =>
      listenRefused(error, /loopback/),
    );
  }
});

test('more clients than there is room for are turned away', () =>
  withServer(async ({ path }) => {
    const clients = await Promise.all(Array.from({ length: 64 }, () => RawClient.negotiated(path)));
    assert.equal(await new RawClient(path).next(), undefined);
    clients[0]?.socket.destroy();
    let further: RawClient;
    // The server hears of the one that left before or after it sees the next.
    do further = new RawClient(path);
    while ((await further.next()) === undefined);
  }));

test('quit: SHUTDOWN, the reply, the end, also when the process closes the server before quit is done', () =>
  withServer(async ({ host, server, path }) => {
    host.onQuit = () => server.close();
    const client = await RawClient.negotiated(path);
    const bystander = await RawClient.negotiated(path);
    client.send({ execute: 'quit', id: 9 });
    assert.equal((await client.next())?.['event'], 'SHUTDOWN');
    assert.deepEqual(await client.next(), { return: {}, id: 9 });
    assert.equal(await client.next(), undefined);
    assert.equal((await bystander.next())?.['event'], 'SHUTDOWN');
    assert.equal(await bystander.next(), undefined);
  }));

test('close does not wait for a command that never returns', () =>
  withServer(async ({ host, server, path }) => {
    const begun = new Promise<void>((resolve) => {
      host.onStop = () => {
        resolve();
        return new Promise(() => {});
      };
    });
    const client = await RawClient.negotiated(path);
    client.send({ execute: 'stop' });
    await begun;
    await server.close();
    assert.equal(await client.next(), undefined);
  }));

test('a socket that cannot be asked counts as alive', () =>
  withServer(async ({ host, folder }) => {
    const path = join(folder, 'other.sock');
    const other = createServer().listen(path);
    await once(other, 'listening');
    chmodSync(path, 0o000);
    await assert.rejects(QmpServer.listen({ host, address: { kind: 'unix', path } }), (error) =>
      listenRefused(error, /listens/),
    );
    other.close();
  }));
