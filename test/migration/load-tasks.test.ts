/** The engine's queue of what is loaded beside the stream: what may start when, and how all of it ends. */
import assert from 'node:assert/strict';
import test from 'node:test';
import type { LoadTask } from '../../src/machine/index.ts';
// Nobody outside of the room needs it.
import { type ConfigLoad, LoadTasks } from '../../src/migration/destination/load-tasks.ts';

/** Tasks that begin and end when the test says so. */
class Stage {
  readonly running: string[] = [];
  readonly abort = new AbortController();
  readonly tasks: LoadTasks;
  readonly #ends = new Map<string, (error?: Error) => void>();
  readonly #states = new Map<string, Promise<void>>();

  constructor(configLoad: ConfigLoad) {
    const failed = (error: unknown) => this.abort.abort(error);
    this.tasks = new LoadTasks({ signal: this.abort.signal, configLoad, failed, initialDataLoaded: () => {} });
  }

  /** The state and the configuration of a device. */
  device(name: string, lock: boolean): void {
    const state = this.#begin({ name: `${name} state`, kind: 'state', lock: false });
    this.#states.set(name, state);
    this.#begin({ name: `${name} config`, kind: 'config', lock, after: state });
  }

  async end(name: string, error?: Error): Promise<void> {
    this.#ends.get(name)!(error);
    await turns();
  }

  #begin(task: Omit<LoadTask, 'run'>): Promise<void> {
    const run = () => {
      this.running.push(task.name);
      return new Promise<void>((resolve, reject) => {
        this.#ends.set(task.name, (error) => {
          this.running.splice(this.running.indexOf(task.name), 1);
          if (error === undefined) resolve();
          else reject(error);
        });
      });
    };
    const done = this.tasks.run({ ...task, run });
    done.catch(() => {});
    return done;
  }
}

/** Whatever follows from what has happened has happened. */
async function turns(): Promise<void> {
  for (let i = 0; i < 3; i++) await new Promise((resolve) => setImmediate(resolve));
}

const DEVICES = ['a', 'b', 'c'];

async function staged(configLoad: ConfigLoad, locks: (name: string) => boolean): Promise<Stage> {
  const stage = new Stage(configLoad);
  for (const name of DEVICES) stage.device(name, locks(name));
  await turns();
  assert.deepEqual(stage.running, ['a state', 'b state', 'c state'], 'the states of all devices at once');
  return stage;
}

/** What runs after the states of c and a have been loaded, after that of b, and after the first configuration that was loaded. */
const CASES: readonly [ConfigLoad, locks: string, two: string[], three: string[], first: string[]][] = [
  ['parallel', '', ['b state', 'c', 'a'], ['c', 'a', 'b'], ['a', 'b']],
  ['parallel', 'abc', ['b state', 'c'], ['c'], ['a']],
  ['parallel', 'ac', ['b state', 'c'], ['c', 'b'], ['b', 'a']],
  ['after-iterables', '', ['b state'], ['c', 'a', 'b'], ['a', 'b']],
  ['after-iterables', 'abc', ['b state'], ['c'], ['a']],
  ['serial', '', ['b state', 'c'], ['c'], ['a']],
];

for (const [mode, locks, two, three, first] of CASES) {
  test(`${mode}, lock for '${locks}': configurations in the order in which devices are ready`, async () => {
    const stage = await staged(mode, (name) => locks.includes(name));
    const shown = () => stage.running.map((name) => name.replace(' config', ''));
    await stage.end('c state');
    await stage.end('a state');
    assert.deepEqual(shown(), two);
    await stage.end('b state');
    assert.deepEqual(shown().toSorted(), three.toSorted());
    let settled = false;
    void stage.tasks.settled().then(() => {
      settled = true;
    });
    await stage.end('c config');
    assert.deepEqual(shown().toSorted(), first.toSorted());
    for (let left = stage.running[0]; left !== undefined; left = stage.running[0]) {
      assert.equal(settled, false);
      await stage.end(left);
    }
    assert.equal(settled, true);
  });
}

test('a device whose state fails loads no configuration, and those who wait for the lock do not get it', async () => {
  const stage = await staged('serial', () => false);
  await stage.end('a state');
  await stage.end('b state');
  assert.deepEqual(stage.running, ['c state', 'a config']);
  const settled = stage.tasks.settled();
  const error = new Error('bad state');
  await Promise.all([assert.rejects(settled, error), stage.end('c state', error)]);
  assert.equal(stage.abort.signal.reason, error);
  await stage.end('a config');
  assert.deepEqual(stage.running, []);
});
