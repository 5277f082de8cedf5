/** device-server and device-move: processes of their own, over their sockets. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { stateOf } from './served-device.ts';
import { ask, SMALL, Spawned, startRun, temporaryFolder } from './spawned.ts';

interface Evidence {
  readonly state: { readonly pagesChecked: number; readonly pagesBad: number };
  readonly operations: number;
}

async function startServer(t: TestContext, socket: string, device: string): Promise<Spawned> {
  const server = new Spawned(t, ['device-server', '--socket', socket, '--device', device, '--verify', '--json']);
  await server.line('ready');
  return server;
}

async function sockets(t: TestContext): Promise<readonly [string, string]> {
  const folder = await temporaryFolder(t);
  return [join(folder, 'a.sock'), join(folder, 'b.sock')];
}

test('a device moves between two server processes, to and fro, and is what it must be', async (t) => {
  const [a, b] = await sockets(t);
  const small = 'vf,state-size=2M,state-rate=4M,working-set=512K,dma-size=0';
  const servers = [await startServer(t, a, small), await startServer(t, b, `${small},seed=99`)];
  const there = await new Spawned(t, ['device-move', a, b, '--json']).result(0);
  assert.ok(Number(there['preCopyBytes']) >= 2 * 1024 * 1024);
  assert.deepEqual([await stateOf(a), await stateOf(b)], ['STOP', 'RUNNING']);
  const back = await new Spawned(t, ['device-move', b, a, '--no-precopy', '--json']).result(0);
  assert.deepEqual([back['preCopyBytes'], back['rounds']], [0, 0]);
  assert.ok(Number(back['stopCopyBytes']) >= 2 * 1024 * 1024);
  assert.deepEqual([await stateOf(a), await stateOf(b)], ['RUNNING', 'STOP']);
  for (const server of servers) {
    server.kill('SIGINT');
    assert.equal((await server.result(130))['status'], 'cancelled');
    const evidence = server.lines.filter(({ type }) => type === 'evidence') as unknown as Evidence[];
    assert.ok(evidence.length >= 2);
    for (const { state } of evidence) assert.deepEqual([state.pagesChecked, state.pagesBad], [512, 0]);
    const operations = evidence.map((one) => one.operations);
    assert.deepEqual(
      operations,
      operations.toSorted((x, y) => x - y),
      'it has gone on where it was',
    );
  }
});

test('a destination that dies in the middle leaves the device running where it was', async (t) => {
  const [a, b] = await sockets(t);
  await startServer(t, a, 'vf,state-size=4M,save-bandwidth=2M,dma-size=0');
  const destination = await startServer(t, b, 'vf,state-size=4M,dma-size=0');
  const move = new Spawned(t, ['device-move', a, b, '--no-precopy', '--json']);
  await move.line('stopped');
  destination.kill('SIGKILL');
  const { status, error } = await move.result(1);
  assert.deepEqual([status, (error as { code: string }).code], ['failed', 'DEVICE_MOVE_FAILED']);
  assert.deepEqual(
    [(error as { source: string }).source, (error as { destination: string }).destination],
    ['RUNNING', 'unknown'],
  );
  assert.equal(await stateOf(a), 'RUNNING');
});

test('a move is given up by an interrupt, and the device runs on', async (t) => {
  const [a, b] = await sockets(t);
  await startServer(t, a, 'vf,state-size=8M,save-bandwidth=2M,dma-size=0');
  await startServer(t, b, 'vf,state-size=8M,dma-size=0');
  const move = new Spawned(t, ['device-move', a, b, '--no-precopy', '--json']);
  await move.line('stopped');
  move.kill('SIGINT');
  assert.equal((await move.result(130))['status'], 'cancelled');
  assert.deepEqual([await stateOf(a), await stateOf(b)], ['RUNNING', 'RUNNING']);
});

test('devices that do not fit each other: the source runs on', async (t) => {
  const [a, b] = await sockets(t);
  await startServer(t, a, 'vf,state-size=1M,dma-size=0');
  await startServer(t, b, 'vf,state-size=2M,dma-size=0');
  const { error } = await new Spawned(t, ['device-move', a, b, '--json']).result(1);
  assert.equal((error as { code: string }).code, 'DEVICE_MOVE_FAILED');
  assert.equal(await stateOf(a), 'RUNNING');
});

test('a running machine moves with a device that lives behind a server at either end', async (t) => {
  const folder = await temporaryFolder(t);
  const [a, b, qmpA, qmpB] = ['a', 'b', 'qmp-a', 'qmp-b'].map((name) => join(folder, name)) as [
    string,
    string,
    string,
    string,
  ];
  const vf = 'vf,state-size=2M,working-set=512K,state-rate=2M,dma-rate=1M,dma-size=1M';
  const servers = [await startServer(t, a, vf), await startServer(t, b, `${vf},seed=99`)];
  const run = (qmp: string, socket: string, ...more: string[]) =>
    startRun(t, qmp, ...SMALL, '--device', `vfio-user,socket=${socket},dma-size=1M`, ...more);
  await run(qmpA, a);
  await run(qmpB, b, '--incoming', 'defer');
  await ask(qmpA, 'migrate-set-parameters', { 'avail-switchover-bandwidth': 1_000_000_000 });
  const moved = await new Spawned(t, ['migrate', qmpA, qmpB, '--json']).result(0);
  assert.equal(moved['status'], 'completed');
  await servers[0]!.line(({ type, to }) => type === 'state' && to === 'STOP_COPY');
  await servers[1]!.line(({ type, to }) => type === 'state' && to === 'RUNNING');
  await ask(qmpB, 'stop');
  const { details } = await ask<{ details: readonly string[] }>(qmpB, 'x-workload-verify');
  assert.deepEqual(details, []);
  const resting = (await servers[1]!.line('evidence')) as unknown as Evidence;
  assert.deepEqual([resting.state.pagesChecked, resting.state.pagesBad], [512, 0]);
});

test('nobody is there', async (t) => {
  const [a, b] = await sockets(t);
  const { error } = await new Spawned(t, ['device-move', a, b, '--json']).result(1);
  assert.equal((error as { code: string }).code, 'TRANSPORT_REFUSED');
});

for (const device of [
  'nic',
  'vf,colour=red',
  'vf,preset=huge',
  'vf,state-size=1',
  'vf,precopy=maybe',
  'vf,arc-ms=',
  'vf,state-size',
  'vfio-user,socket=x',
]) {
  test(`usage: --device ${device}`, async (t) => {
    const [a] = await sockets(t);
    const { error } = await new Spawned(t, ['device-server', '--socket', a, '--device', device, '--json']).result(2);
    assert.equal((error as { code: string }).code, 'USAGE');
  });
}
