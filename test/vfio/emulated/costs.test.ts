/** What is the emulated VF's own: its options, its costs, its initial data, when it is active. */
import assert from 'node:assert/strict';
import test from 'node:test';
import {
  EmulatedDevice as Device,
  VF_PRESETS,
  type VfioFault,
  type VfOptions,
  vfOptions,
} from '../../../src/vfio/index.ts';
import { readAll } from '../../contract/device.ts';
import { TestClock } from '../../support/device-clock.ts';
import { device, MIB, pass, SMALL } from './support.ts';

async function moved(options: VfOptions): Promise<{ saveMs: number; loadMs: number; bytes: number }> {
  const { vf, clock } = device(options);
  await vf.setState('STOP_COPY');
  const start = clock.now();
  const stream = await readAll(vf, MIB);
  const saveMs = clock.now() - start;
  const other = device(options);
  await other.vf.setState('RESUMING');
  const loadStart = other.clock.now();
  for (let at = 0; at < stream.length; at += MIB) await other.vf.write(Buffer.from(stream.subarray(at, at + MIB)));
  return { saveMs, loadMs: other.clock.now() - loadStart, bytes: stream.length };
}

test('the cost model: saving, loading and allocation take what they are said to take', async () => {
  const rates = { 'save-bandwidth': 100e6, 'load-bandwidth': 50e6, 'allocation-ms': 30, 'state-size': 8 * MIB };
  const { saveMs, loadMs, bytes } = await moved(vfOptions(rates));
  assert.ok(Math.abs(saveMs - bytes / 100e3) < 6, `saved in ${saveMs} ms`);
  assert.ok(Math.abs(loadMs - (bytes / 50e3 + 30)) < 8, `loaded in ${loadMs} ms`);
  const free = await moved(vfOptions({ 'state-size': 8 * MIB }));
  assert.deepEqual([free.saveMs, free.loadMs], [0, 0]);
});

test('the cost model: arcs and the configuration', async () => {
  const { vf, clock } = device(vfOptions({ 'arc-ms': 7, arcs: { 'STOP>STOP_COPY': 40 }, 'config-load-ms': 70 }));
  const path = await vf.setState('STOP_COPY');
  assert.deepEqual(
    path.map(({ ms }) => ms),
    [7, 7, 40],
  );
  assert.equal(await vf.estimate('RUNNING'), 21);
  const start = clock.now();
  await vf.loadConfig(await vf.saveConfig());
  assert.equal(clock.now() - start, 70);
});

test('REINIT: new initial data once, in PRE_COPY only; told once, and the stream is whole all the same', async () => {
  const options = vfOptions({ ...SMALL, 'initial-size': MIB / 2, 'reinit-ms': 50 });
  const { vf, clock } = device(options);
  await pass(vf, clock, 100);
  await vf.setState('PRE_COPY');
  const parts: Buffer[] = [];
  const readInitial = async () => {
    for (;;) {
      const into = Buffer.alloc(50_000);
      const count = await vf.read(into);
      assert.equal(typeof count, 'number');
      parts.push(into.subarray(0, count as number));
      if ((await vf.precopyInfo()).initialBytes === 0) return;
    }
  };
  assert.equal((await vf.precopyInfo()).reinit, false);
  await readInitial();
  await pass(vf, clock, 20);
  const before = await vf.precopyInfo();
  assert.ok(!before.reinit && before.initialBytes === 0 && before.dirtyBytes > 0);
  await pass(vf, clock, 50);
  const news = await vf.precopyInfo();
  assert.ok(news.reinit && news.initialBytes >= MIB / 2);
  assert.equal(news.dirtyBytes, 0);
  await readInitial();
  await pass(vf, clock, 100);
  const after = await vf.precopyInfo();
  assert.ok(!after.reinit && after.initialBytes === 0);
  await vf.setState('STOP_COPY');
  parts.push(await readAll(vf));
  const there = device(vfOptions(SMALL)).vf;
  await there.setState('RESUMING');
  await there.write(Buffer.concat(parts));
  await there.setState('STOP');
  assert.equal((await there.evidence()).state.pagesBad, 0);
});

test("the presets are the seeds' devices", async () => {
  const hundred = vfOptions({}, 'vf-100m');
  assert.equal(hundred['state-size'], 100 * MIB);
  assert.deepEqual([hundred['config-load-ms'], hundred['config-lock'], hundred.precopy], [70, true, false]);
  const three = vfOptions({}, 'vf-300m');
  assert.ok(Math.abs(three['state-size'] - 300e6) < 4096);
  assert.equal(three['allocation-ms'], 1480);
  const { precopy, 'initial-size': initial, 'config-lock': lock, ...same } = vfOptions({}, 'vf-100m-precopy');
  assert.deepEqual([precopy, initial, lock], [true, 8 * MIB, false]);
  assert.deepEqual({ ...hundred, ...same }, hundred);
  assert.deepEqual(Object.keys(VF_PRESETS), ['small', 'vf-100m', 'vf-100m-precopy', 'vf-300m']);
  assert.equal(vfOptions({ precopy: true }, 'vf-100m').precopy, true);
});

test('a device says when it begins and ends to do something of its own; what it did not do meanwhile is not made up for', async () => {
  const clock = new TestClock();
  const active: boolean[] = [];
  const vf = new Device({
    name: 'vf',
    options: vfOptions({ 'state-size': MIB, 'state-rate': 4096e3 }),
    dmaIova: 0,
    clock,
    activeChanged: (now) => active.push(now),
  });
  await clock.sleep(clock.now() + 5);
  vf.tick();
  await vf.setState('STOP');
  const { operations } = await vf.evidence();
  assert.ok(operations >= 5);
  await vf.setState('STOP_COPY');
  await clock.sleep(clock.now() + 50);
  await vf.setState('STOP');
  await vf.setState('RUNNING');
  vf.tick();
  await vf.setState('STOP');
  assert.deepEqual(active, [true, false, true, false]);
  const later = await vf.evidence();
  assert.ok(later.operations - operations < 10, `${later.operations - operations} operations, stopped for 50 ms`);
  assert.equal(later.state.pagesBad, 0);
});

test('options and faults that cannot be are refused by name', () => {
  const refused = (make: () => unknown, option: string) =>
    assert.throws(make, (error: { fault?: VfioFault }) => {
      assert.equal(error.fault?.code, 'VFIO_OPTION');
      return error.fault.code === 'VFIO_OPTION' && error.fault.option === option;
    });
  refused(() => vfOptions({ 'state-size': 5000 }), 'state-size');
  refused(() => vfOptions({ 'state-size': 0 }), 'state-size');
  refused(() => vfOptions({ 'initial-size': 32 * MIB, 'state-size': 16 * MIB }), 'initial-size');
  refused(() => vfOptions({ 'arc-ms': -1 }), 'arc-ms');
  refused(() => vfOptions({ seed: 1.5 }), 'seed');
  refused(() => vfOptions({ 'save-bandwidth': Number.NaN }), 'save-bandwidth');
  for (const fault of [
    '',
    'read data',
    'read data:explode',
    'nowhere:fail',
    'read data:fail,errno=EFOO',
    'read data:fail,x=1',
    'write data:short',
    'arc STOP>RUNNING:corrupt',
  ]) {
    refused(() => vfOptions({ faults: [fault] }), 'fault');
  }
});
