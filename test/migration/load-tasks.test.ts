/** The queue of what goes on beside the main stream while a machine is loaded: what waits for what, and how it ends. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import type { LoadTask } from '../../src/machine/index.ts';
import { type ConfigLoad, LoadTasks } from '../../src/migration/destination/load-tasks.ts';

/** A task that ends when it is told to. */
interface Held {
  readonly task: LoadTask;
  end(): void;
  fail(error: Error): void;
}

/** Tasks that note in `log` when they begin and end. */
class Bench {
  readonly abort = new AbortController();
  readonly failures: unknown[] = [];
  readonly log: string[] = [];
  readonly tasks: LoadTasks;

  constructor(configLoad: ConfigLoad = 'parallel') {
    this.tasks = new LoadTasks({
      signal: this.abort.signal,
      configLoad,
      failed: (error) => {
        this.failures.push(error);
        this.abort.abort(error);
      },
      initialDataLoaded: ({ idstr }) => this.log.push(`initial ${idstr}`),
    });
  }

  held(name: string, more: Partial<LoadTask> = {}): Held {
    let end: () => void = () => {};
    let fail: (error: Error) => void = () => {};
    const over = new Promise<void>((resolve, reject) => {
      end = resolve;
      fail = reject;
    });
    over.catch(() => {});
    const run = async () => {
      this.log.push(`${name} begins`);
      await over;
      this.log.push(`${name} ends`);
    };
    return { task: { name, kind: 'config', lock: false, run, ...more }, end, fail };
  }

  /** What was logged since the last time, once nothing moves any more. */
  async since(): Promise<readonly string[]> {
    await new Promise((resolve) => setImmediate(resolve));
    return this.log.splice(0);
  }
}

/** `true` as soon as the promise is fulfilled. */
function watch(promise: Promise<unknown>): () => boolean {
  let done = false;
  promise.then(
    () => {
      done = true;
    },
    () => {},
  );
  return () => done;
}

test('tasks without the lock run all together; nothing is settled before the last has ended', async () => {
  const bench = new Bench();
  const [a, b, c] = ['a', 'b', 'c'].map((name) => bench.held(name)) as [Held, Held, Held];
  for (const { task } of [a, b, c]) void bench.tasks.run(task);
  const settled = watch(bench.tasks.settled());
  assert.deepEqual(await bench.since(), ['a begins', 'b begins', 'c begins']);
  b.end();
  a.end();
  assert.deepEqual(await bench.since(), ['b ends', 'a ends']);
  assert.equal(settled(), false);
  c.end();
  assert.deepEqual(await bench.since(), ['c ends']);
  assert.equal(settled(), true);
  await bench.tasks.settled();
});

test('tasks with the machine lock run one at a time, in the order in which they became ready; others pass them', async () => {
  const bench = new Bench();
  const data = bench.held('data of a', { kind: 'state' });
  const dataDone = bench.tasks.run(data.task);
  const a = bench.held('a', { lock: true, after: dataDone });
  const b = bench.held('b', { lock: true });
  const c = bench.held('c', { lock: true });
  const free = bench.held('free');
  for (const { task } of [a, b, c, free]) void bench.tasks.run(task);
  assert.deepEqual(await bench.since(), ['data of a begins', 'free begins', 'b begins']);
  data.end();
  assert.deepEqual(await bench.since(), ['data of a ends']);
  b.end();
  assert.deepEqual(await bench.since(), ['b ends', 'c begins']);
  c.end();
  assert.deepEqual(await bench.since(), ['c ends', 'a begins']);
});

test('after-iterables: configurations wait for the state of all devices, whoever comes later with some too', async () => {
  const bench = new Bench('after-iterables');
  const [one, two] = [bench.held('one', { kind: 'state' }), bench.held('two', { kind: 'state' })];
  void bench.tasks.run(one.task);
  void bench.tasks.run(bench.held('config').task);
  void bench.tasks.run(two.task);
  assert.deepEqual(await bench.since(), ['one begins', 'two begins']);
  one.end();
  assert.deepEqual(await bench.since(), ['one ends']);
  two.end();
  assert.deepEqual(await bench.since(), ['two ends', 'config begins']);
});

test('serial: every configuration takes the machine lock, state does not', async () => {
  const bench = new Bench('serial');
  const [a, b] = [bench.held('a'), bench.held('b')];
  for (const { task } of [a, b, bench.held('state', { kind: 'state' })]) void bench.tasks.run(task);
  assert.deepEqual(await bench.since(), ['state begins', 'a begins']);
  a.end();
  assert.deepEqual(await bench.since(), ['a ends', 'b begins']);
});

test('a failure fails the migration and all that waits; what stands behind it never begins', async () => {
  const bench = new Bench('after-iterables');
  const wrong = new Error('wrong');
  const state = bench.held('state', { kind: 'state' });
  const stateDone = bench.tasks.run(state.task);
  const holder = bench.held('holder', { kind: 'state', lock: true });
  void bench.tasks.run(holder.task);
  const waiting = [
    bench.held('behind it', { after: stateDone }),
    bench.held('behind all state'),
    bench.held('behind the lock', { kind: 'state', lock: true }),
  ].map(({ task }) => bench.tasks.run(task));
  const settled = bench.tasks.settled();
  assert.deepEqual(await bench.since(), ['state begins', 'holder begins']);
  state.fail(wrong);
  await assert.rejects(stateDone, wrong);
  await assert.rejects(settled, wrong);
  await assert.rejects(bench.tasks.settled(), wrong);
  holder.end();
  for (const one of waiting) await assert.rejects(one, wrong);
  assert.deepEqual(await bench.since(), ['holder ends']);
  assert.ok(bench.failures.length > 0 && bench.failures.every((error) => error === wrong));
});

test('a migration that fails elsewhere ends every wait', async () => {
  const bench = new Bench('after-iterables');
  void bench.tasks.run(bench.held('state', { kind: 'state' }).task);
  const config = bench.tasks.run(bench.held('config').task);
  const settled = bench.tasks.settled();
  const cut = new Error('cut');
  bench.abort.abort(cut);
  await assert.rejects(config, cut);
  await assert.rejects(settled, cut);
});

test('initial data and failures of a machine are passed on', () => {
  const bench = new Bench();
  bench.tasks.initialDataLoaded({ idstr: 'vf0', instance: 0 });
  assert.deepEqual(bench.log, ['initial vf0']);
  bench.tasks.failed(new Error('by itself'));
  assert.equal(bench.abort.signal.aborted, true);
});

test('whatever is queued and in whatever order it ends: the lock is one at a time, configurations come after their data', async () => {
  const device = fc.record({ lock: fc.boolean(), state: fc.nat(5), config: fc.nat(5) });
  const mode = fc.constantFrom<ConfigLoad>('parallel', 'after-iterables', 'serial');
  await fc.assert(
    fc.asyncProperty(mode, fc.array(device, { minLength: 1, maxLength: 8 }), async (configLoad, devices) => {
      const bench = new Bench(configLoad);
      let open = 0;
      let statesLeft = devices.length;
      const turns = async (count: number) => {
        for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
      };
      const loaded: number[] = [];
      for (const [number, { lock, state, config }] of devices.entries()) {
        const alone = lock || configLoad === 'serial';
        let here = false;
        const after = bench.tasks.run({
          name: `state ${number}`,
          kind: 'state',
          lock: false,
          run: async () => {
            await turns(state);
            here = true;
            statesLeft--;
          },
        });
        void bench.tasks.run({
          name: `config ${number}`,
          kind: 'config',
          lock,
          after,
          run: async () => {
            assert.ok(here, 'its data is here');
            if (configLoad === 'after-iterables') assert.equal(statesLeft, 0);
            if (alone) assert.equal(++open, 1, 'one at a time');
            await turns(config);
            if (alone) open--;
            loaded.push(number);
          },
        });
      }
      await bench.tasks.settled();
      assert.equal(loaded.length, devices.length);
      assert.deepEqual(bench.failures, []);
    }),
    { numRuns: 200 },
  );
});
