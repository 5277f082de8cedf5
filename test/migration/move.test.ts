/** A running machine moves between two engines of one process; every page and register is verified afterwards. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { assertCompleted } from '../support/completed.ts';
import { memoryPair } from '../support/memory-channel.ts';
import { type Move, type MoveOptions, move, testSettings } from '../support/move.ts';
import { verified, workloadPair } from '../support/workload-pair.ts';

const MIB = 1024 * 1024;

async function completed(options: MoveOptions): Promise<Move> {
  const moved = move(options);
  const { source, destination } = await moved.ended;
  assertCompleted(source, destination);
  assert.equal(destination.confirmed, true);
  return moved;
}

test('a machine that runs arrives running and whole', async (t) => {
  const { source, destination } = await workloadPair(t);
  await source.resume();
  const { outgoing } = await completed({ source, destination, channels: memoryPair() });
  assert.equal(source.runState, 'postmigrate');
  assert.equal(destination.runState, 'running');
  const before = destination.statistics.operations;
  assert.ok(before > 0);
  const info = outgoing.info();
  assert.equal(info.status, 'completed');
  assert.ok(info.ram!['dirty-sync-count'] >= 2);
  assert.ok(info.downtime! < 1000);
  await verified(destination);
});

test('a paused machine arrives paused', async (t) => {
  const { source, destination } = await workloadPair(t);
  await source.resume();
  await source.stop('paused');
  await completed({ source, destination, channels: memoryPair() });
  assert.equal(destination.runState, 'paused');
  await verified(destination);
});

test('xbzrle: later rounds send differences, and the memory is the same', async (t) => {
  const { source, destination } = await workloadPair(t, { dirtyRate: 100e6, ram: 64 * MIB });
  await source.resume();
  const settings = testSettings((s) => {
    s.setCapabilities([{ capability: 'xbzrle', state: true }]);
    s.setParameters({ 'max-bandwidth': 60e6, 'downtime-limit': 20, 'xbzrle-cache-size': 128 * MIB });
  });
  const moved = move({ source, destination, channels: memoryPair(), settings });
  const { source: result } = await moved.ended;
  assertCompleted(result);
  assert.ok(result.info['xbzrle-cache']!.pages > 0, 'no page was sent as a difference');
  await verified(destination);
});

test('there and back again', async (t) => {
  const { source, destination } = await workloadPair(t);
  await source.resume();
  let [from, to] = [source, destination];
  for (let turn = 0; turn < 4; turn++) {
    if (to.runState !== 'inmigrate') await to.awaitIncoming();
    await completed({ source: from, destination: to, channels: memoryPair() });
    [from, to] = [to, from];
  }
  await verified(from);
});

test('cancel: the guest goes on at the source, the destination is clean', async (t) => {
  const { source, destination } = await workloadPair(t);
  await source.resume();
  const settings = testSettings((s) => s.setParameters({ 'max-bandwidth': 1e6 }));
  const moved = move({
    source,
    destination,
    channels: memoryPair(),
    settings,
    outgoing: { status: (status) => status === 'active' && setImmediate(() => moved.outgoing.cancel()) },
  });
  const { source: result, destination: there } = await moved.ended;
  assert.equal(result.status, 'cancelled');
  assert.equal(there.status, 'failed');
  assert.equal(source.runState, 'running');
  assert.equal(destination.runState, 'inmigrate');
  await completed({ source, destination, channels: memoryPair() });
  await verified(destination);
});
