import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import test from 'node:test';
import { FerryError } from '../../../src/base/index.ts';
import { controlOf, Word } from '../../../src/machine/workload/control-words.ts';
import { Hardware } from '../../../src/machine/workload/hardware.ts';
import { layoutOf } from '../../../src/machine/workload/layout.ts';
import { Vcpus } from '../../../src/machine/workload/vcpus.ts';
import { assertVerified, MIB, machineFor, operations } from './support.ts';

/** Operations in the next `ms` milliseconds. */
async function operationsIn(machine: Awaited<ReturnType<typeof machineFor>>, ms: number): Promise<number> {
  const before = machine.statistics.operations;
  const start = performance.now();
  await new Promise((resolve) => setTimeout(resolve, ms));
  return ((machine.statistics.operations - before) * ms) / (performance.now() - start);
}

test('a stopped guest does nothing, a resumed one goes on from there', async (t) => {
  const machine = await machineFor(t, { vcpus: 3 });
  await machine.dirtyLog!.start();
  for (let again = 0; again < 10; again++) {
    await machine.resume();
    await operations(machine, 500);
    await machine.stop('paused');
    const { operations: done } = machine.statistics;
    const fingerprint = machine.fingerprint();
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(machine.statistics.operations, done);
    assert.equal(machine.fingerprint(), fingerprint);
  }
  await assertVerified(machine);
});

test('sixteen vCPUs stop and resume together', async (t) => {
  const machine = await machineFor(t, { ram: MIB, vcpus: 16 });
  for (let again = 0; again < 3; again++) {
    await machine.resume();
    await operations(machine, 5000);
    await machine.stop('paused');
  }
  await assertVerified(machine);
});

test('the guest dirties memory at the rate that was asked for', async (t) => {
  const machine = await machineFor(t, { dirtyRate: 20e6, pattern: 'uniform' });
  await machine.resume();
  await operations(machine, 100);
  const rate = ((await operationsIn(machine, 500)) / 0.5) * 4096;
  assert.ok(rate > 10e6 && rate < 23e6, `${rate} bytes/s`);
  await machine.stop('paused');
  await assertVerified(machine);
});

test('the throttle takes its share of the guest and gives it back', async (t) => {
  const machine = await machineFor(t, { dirtyRate: 40e6 });
  await machine.resume();
  await operations(machine, 1000);
  const free = await operationsIn(machine, 400);
  machine.throttle(80);
  const throttled = await operationsIn(machine, 400);
  assert.ok(throttled > 0 && throttled < free * 0.45, `${throttled} of ${free}`);
  machine.throttle(99);
  assert.ok((await operationsIn(machine, 400)) < free * 0.15);
  machine.throttle(0);
  assert.ok((await operationsIn(machine, 400)) > throttled * 1.5);
  await machine.stop('paused');
  await assertVerified(machine);
});

test('a throttled guest is stopped at once all the same', async (t) => {
  const machine = await machineFor(t, {});
  await machine.resume();
  await operations(machine, 100);
  machine.throttle(99);
  // Into the throttle's sleep of 990 ms, which the stop must end.
  await new Promise((resolve) => setTimeout(resolve, 50));
  const start = performance.now();
  await machine.stop('paused');
  assert.ok(performance.now() - start < 500, `${performance.now() - start} ms`);
});

test('logging that is off leaves no trace, and switches on and off while the guest runs', async (t) => {
  const machine = await machineFor(t, {});
  const harvested = () => {
    const into = new Uint32Array(2048);
    return machine.ram.reduce((sum, { index }) => sum + machine.dirtyLog!.harvest(index, into.fill(0)), 0);
  };
  await machine.resume();
  await operations(machine, 500);
  assert.equal(harvested(), 0);
  await machine.dirtyLog!.start();
  await operations(machine, 500);
  assert.ok(harvested() > 0);
  await machine.dirtyLog!.stop();
  harvested();
  await operations(machine, 500);
  assert.equal(harvested(), 0);
});

test('a vCPU that dies is told to its machine, and nobody waits for it any more', async (t) => {
  const program = { seed: 1, pattern: 'uniform', fillPpm: 0, dirtyRate: Number.POSITIVE_INFINITY } as const;
  const deaths = new EventEmitter();
  let deathCount = 0;
  const hardware = await Hardware.start(layoutOf(MIB), 2, program, true, (error) => {
    deathCount++;
    deaths.emit('death', error);
  });
  t.after(() => hardware.vcpus.end());
  const death = once(deaths, 'death', { signal: AbortSignal.timeout(10_000) });
  hardware.control.words[Word.PATTERN] = 99;
  hardware.vcpus.run();
  const [error] = (await death) as [FerryError];
  assert.match(error.message, /the thread of vCPU [01] has ended/);
  await assert.rejects(hardware.vcpus.park(), error);
  await assert.rejects(hardware.vcpus.log(true), error);
  assert.equal(deathCount, 1);
});

test('a vCPU that does not answer is named after the deadline', async () => {
  const layout = layoutOf(MIB);
  const shared = {
    ramBytes: MIB,
    vcpuCount: 2,
    memory: layout.blocks.map(({ usedLength }) => new SharedArrayBuffer(usedLength)),
    dirtyLog: new SharedArrayBuffer(layout.flatPageCount / 8),
    present: new SharedArrayBuffer(layout.flatPageCount / 8),
    // Not the control page that the machine writes: its requests reach nobody.
    control: controlOf().shared,
  };
  await assert.rejects(
    Vcpus.start(shared, controlOf(), false, () => {}, { startMs: 300, obeyMs: 300 }),
    (error) => {
      assert.ok(error instanceof FerryError);
      assert.deepEqual(error.fault, { code: 'WORKLOAD_VCPU_SILENT', vcpus: [0, 1], deadlineMs: 300 });
      return true;
    },
  );
});

test('a busy, a sleeping and a throttled machine are disposed of', async (t) => {
  for (const options of [{}, { pattern: 'idle' }, { dirtyRate: 0 }] as const) {
    const machine = await machineFor(t, options);
    await machine.resume();
    machine.throttle(90);
    await machine.dispose();
  }
});
