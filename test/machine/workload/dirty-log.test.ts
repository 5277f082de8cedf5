import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { Worker } from 'node:worker_threads';
import { newBitmap, testBit } from '../../../src/base/index.ts';
import type { PageWindow } from '../../../src/machine/index.ts';
import { harvest, markDirty } from '../../../src/machine/workload/dirty-log.ts';
import { layoutOf } from '../../../src/machine/workload/layout.ts';
import type { LoggedWriterStart } from './logged-writer-thread.ts';
import { Copy, type LoggedMemory, MIB, machineFor, operations, PAGE } from './support.ts';

test('a harvest moves the bits of its block only, adds to what is there and counts what is new', () => {
  const layout = layoutOf(MIB + PAGE);
  const [ram, vram] = layout.blocks;
  const log = new Int32Array(layout.flatPageCount / 32);
  for (const page of [0, 31, 32, 256, vram.firstPage]) markDirty(log, page);
  const into = newBitmap(ram.pageCount);
  into[0] = 1 | 2;
  assert.equal(harvest(log, ram, into), 3);
  assert.deepEqual(
    [0, 1, 31, 32, 256].filter((page) => !testBit(into, page)),
    [],
  );
  assert.equal(harvest(log, ram, into), 0);
  assert.equal(harvest(log, vram, newBitmap(vram.pageCount)), 1);
  assert.ok(log.every((word) => word === 0));
});

/**
 * The ordering argument, run through: every interleaving of a vCPU that stores to an already dirty page and a harvester that takes
 * the bit and copies the page. Stores wait in a store buffer until a read-modify-write or `drain` (at any time) empties it.
 */
type Step = 'store' | 'or' | 'or-unless-set' | 'drain';

function losesAStore(vcpu: readonly Step[]): boolean {
  interface State {
    memory: number;
    buffered: number | undefined;
    bit: boolean;
    copied: number;
  }
  const drained = (s: State): State => ({ ...s, memory: s.buffered ?? s.memory, buffered: undefined });
  const byVcpu = (s: State, step: Step): State => {
    if (step === 'store') return { ...s, buffered: 1 };
    if (step === 'or' || (step === 'or-unless-set' && !s.bit)) return { ...drained(s), bit: true };
    return step === 'drain' ? drained(s) : s;
  };
  const harvesting = [(s: State) => ({ ...s, bit: false }), (s: State) => ({ ...s, copied: s.memory })];
  const explore = (s: State, i: number, j: number): boolean => {
    if (i === vcpu.length && j === harvesting.length) {
      const end = drained(s);
      return end.copied !== end.memory && !end.bit;
    }
    return (
      (i < vcpu.length && explore(byVcpu(s, vcpu[i]!), i + 1, j)) ||
      (j < harvesting.length && explore(harvesting[j]!(s), i, j + 1))
    );
  };
  return explore({ memory: 0, buffered: undefined, bit: true, copied: -1 }, 0, 0);
}

test('store, then or: no interleaving loses the store; the other orders lose it', () => {
  assert.equal(losesAStore(['store', 'or']), false);
  assert.equal(losesAStore(['store', 'drain', 'or']), false);
  assert.equal(losesAStore(['or', 'store', 'drain']), true);
  assert.equal(losesAStore(['store', 'or-unless-set', 'drain']), true);
});

for (const [seed, pattern, vcpus] of [
  [1, 'uniform', 1],
  [2, 'hot-cold', 2],
  [3, 'sequential', 2],
  [4, 'uniform', 3],
  [5, 'hot-cold', 5],
  [6, 'sequential', 3],
] as const) {
  test(`no page is lost while ${vcpus} vCPUs run ${pattern}, seed ${seed}`, async (t) => {
    const machine = await machineFor(t, { ram: MIB, vcpus, seed, pattern });
    await machine.resume();
    for (let again = 0; again < 4; again++) {
      await machine.dirtyLog!.start();
      const copy = new Copy(machine);
      copy.all();
      for (let round = 0; round < 20; round++) {
        await operations(machine, 500);
        assert.ok(copy.round() > 0);
      }
      await machine.stop('paused');
      copy.round();
      assert.deepEqual(copy.stale(), []);
      assert.equal(copy.round(), 0, 'a stopped guest dirties nothing');
      await machine.resume();
      await machine.dirtyLog!.stop();
    }
  });
}

/** A thread that writes page after page and logs it, in the right order or in the wrong one. */
async function writer(t: TestContext, order: LoggedWriterStart['order']) {
  const layout = layoutOf(MIB);
  const start: LoggedWriterStart = {
    order,
    memory: new SharedArrayBuffer(MIB),
    log: new SharedArrayBuffer(layout.flatPageCount / 8),
    control: new SharedArrayBuffer(12),
  };
  const thread = new Worker(new URL('./logged-writer-thread.js', import.meta.url), { workerData: start, execArgv: [] });
  t.after(() => thread.terminate());
  const log = new Int32Array(start.log);
  const window: PageWindow = { bytes: Buffer.from(start.memory), firstPage: 0, pageCount: MIB / PAGE };
  const memory: LoggedMemory = {
    ram: [{ index: 0, usedLength: MIB }],
    window: () => window,
    dirtyLog: { harvest: (_, into) => harvest(log, layout.blocks[0], into) },
  };
  const control = new Int32Array(start.control);
  return { memory, control, ended: new Promise((resolve) => thread.once('exit', resolve)) };
}

for (const [order, lost] of [
  ['store-first', false],
  ['mark-first', true],
] as const) {
  test(`the same copying ${lost ? 'does lose pages of' : 'keeps up with'} a writer that goes ${order}`, async (t) => {
    const { memory, control, ended } = await writer(t, order);
    const copy = new Copy(memory);
    copy.all();
    const deadline = performance.now() + 20_000;
    // Every page at least twice.
    for (let written = 0; written < 600; written = Atomics.load(control, 1)) {
      assert.ok(performance.now() < deadline, `${written} writes`);
      copy.round();
      Atomics.add(control, 2, 1);
      Atomics.notify(control, 2);
      await new Promise((resolve) => setImmediate(resolve));
    }
    Atomics.store(control, 0, 1);
    await ended;
    copy.round();
    assert.equal(copy.stale().length > 0, lost, `${copy.stale().length} stale pages`);
  });
}
