/** `migrate --postcopy` against scripted processes: when it begins, what it does when the connection breaks, and what it says when nothing helps. */
import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { migrate, type Outcome } from '../../src/porcelain/index.ts';
import { FakeProcess, Refusal } from './fake-process.ts';

interface Ends {
  readonly source: FakeProcess;
  readonly destination: FakeProcess;
  readonly notices: string[];
}

async function pair(t: TestContext): Promise<Ends> {
  const [source, destination] = [await FakeProcess.start(t), await FakeProcess.start(t)];
  destination.status = 'inmigrate';
  for (const one of [source, destination]) one.capabilities['postcopy-ram'] = false;
  source.on['migrate'] = () => {
    source.migration = active(1);
  };
  return { source, destination, notices: [] };
}

const active = (rounds: number) => ({ status: 'active', ram: { transferred: 10, 'dirty-sync-count': rounds } });
const PAUSED = { status: 'postcopy-paused', 'error-desc': 'broken pipe', ram: { transferred: 1000 } };

function move({ source, destination, notices }: Ends, afterRounds: number, signal?: AbortSignal): Promise<Outcome> {
  return migrate({
    source: source.path,
    destination: { qmp: destination.path },
    settings: { capabilities: [], parameters: {} },
    postcopy: { afterRounds, notice: (text) => notices.push(text) },
    ...(signal === undefined ? {} : { signal }),
  });
}

/** The guest runs there, with all of its memory. */
function complete({ source, destination }: Ends): void {
  source.status = 'postmigrate';
  source.migration = { status: 'completed', ram: { transferred: 5000 } };
  destination.status = 'running';
  destination.migration = { status: 'completed' };
}

/** The guest runs there, and the connection has broken; `there` is what the destination says of it. */
function breaks({ source, destination }: Ends, there: string): void {
  source.status = 'postmigrate';
  source.migration = PAUSED;
  destination.status = 'running';
  destination.migration = { status: there };
}

for (const afterRounds of [0, 1, 3]) {
  test(`the source is told after ${afterRounds} rounds, not before, and both ends have postcopy-ram`, async (t) => {
    const ends = await pair(t);
    const { source, destination } = ends;
    let rounds = 1;
    let toldAt = 0;
    source.on['query-migrate'] = () => {
      if (source.migration['status'] === 'active') source.migration = active(rounds++);
      return source.migration;
    };
    source.on['migrate-start-postcopy'] = () => {
      toldAt = rounds - 1;
      complete(ends);
    };
    const outcome = await move(ends, afterRounds);
    assert.equal(outcome.status, 'completed', outcome.message);
    assert.equal(toldAt, afterRounds + 1, 'the count is one in the first round');
    assert.deepEqual([source.capabilities['postcopy-ram'], destination.capabilities['postcopy-ram']], [true, true]);
  });
}

for (const there of ['postcopy-paused', 'postcopy-active']) {
  test(`the connection breaks, and the destination is ${there}: another one at another address`, async (t) => {
    const ends = await pair(t);
    const { source, destination } = ends;
    source.on['migrate-start-postcopy'] = () => breaks(ends, there);
    destination.on['migrate-pause'] = () => {
      destination.migration = { status: 'postcopy-paused' };
    };
    destination.on['migrate-recover'] = () => ({});
    const first = source.on['migrate']!;
    source.on['migrate'] = (args) => (args['resume'] === true ? complete(ends) : first(args));
    const outcome = await move(ends, 0);
    assert.equal(outcome.status, 'completed', outcome.message);
    assert.equal(destination.did('migrate-pause').length, there === 'postcopy-active' ? 1 : 0);
    const uris = [...destination.did('migrate-incoming'), ...destination.did('migrate-recover')].map(({ uri }) => uri);
    assert.equal(new Set(uris).size, 2);
    assert.deepEqual(
      source.did('migrate').map(({ uri }) => uri),
      uris,
    );
    assert.match(ends.notices[0] ?? '', /broken pipe/);
  });
}

test('a destination that waits already refuses another address: the source connects to the first', async (t) => {
  const ends = await pair(t);
  const { source, destination } = ends;
  source.on['migrate-start-postcopy'] = () => breaks(ends, 'postcopy-paused');
  let recovers = 0;
  destination.on['migrate-recover'] = () => {
    if (++recovers > 1) throw new Refusal('Migrate recovery is triggered already');
  };
  const first = source.on['migrate']!;
  let resumes = 0;
  source.on['migrate'] = (args) => {
    if (args['resume'] !== true) return first(args);
    if (++resumes === 1) throw new Refusal('no route to host');
    return complete(ends);
  };
  assert.equal((await move(ends, 0)).status, 'completed');
  const [, once, twice] = source.did('migrate').map(({ uri }) => uri);
  assert.equal(once, twice);
});

test('nothing helps: neither end is touched, and the last word says how to go on', async (t) => {
  const ends = await pair(t);
  const { source, destination } = ends;
  source.on['migrate-start-postcopy'] = () => breaks(ends, 'postcopy-paused');
  destination.on['migrate-recover'] = () => {
    throw new Refusal('address in use');
  };
  const outcome = await move(ends, 0);
  assert.equal(outcome.status, 'failed');
  assert.match(outcome.error?.message ?? '', /address in use/);
  assert.match(outcome.message, /END NEITHER OF THEM.*migrate-recover.*resume: true/);
  assert.deepEqual([outcome.source, outcome.destination], ['postmigrate', 'running']);
  for (const command of ['cont', 'quit', 'migrate_cancel', 'stop'])
    assert.deepEqual([...source.did(command), ...destination.did(command)], [], command);
});

test('only the source does not know that everything is there', async (t) => {
  const ends = await pair(t);
  ends.source.on['migrate-start-postcopy'] = () => {
    breaks(ends, 'completed');
  };
  const outcome = await move(ends, 0);
  assert.equal(outcome.status, 'completed');
  assert.match(outcome.message, /all of its memory/);
});

test('the source is gone before all has been sent: that is no success', async (t) => {
  const ends = await pair(t);
  ends.source.on['migrate-start-postcopy'] = () => {
    breaks(ends, 'postcopy-paused');
    ends.source.die();
  };
  const outcome = await move(ends, 0);
  assert.equal(outcome.status, 'failed');
  assert.equal(outcome.source, 'gone');
  assert.match(outcome.message, /memory that had not been sent/);
});

test('Ctrl-C cancels before the source was told, and nothing after', async (t) => {
  for (const afterRounds of [0, 9]) {
    const ends = await pair(t);
    const { source } = ends;
    const interrupt = new AbortController();
    source.on['migrate-start-postcopy'] = () => {
      source.migration = { status: 'postcopy-active', ram: { transferred: 20 } };
      interrupt.abort(new Error('interrupted'));
    };
    source.on['migrate_cancel'] = () => {
      source.migration = { status: 'cancelled' };
    };
    let looks = 0;
    source.on['query-migrate'] = () => {
      if (++looks === 2) interrupt.abort(new Error('interrupted'));
      if (looks === 6 && source.migration['status'] === 'postcopy-active') complete(ends);
      return source.migration;
    };
    const outcome = await move(ends, afterRounds, interrupt.signal);
    assert.equal(outcome.status, afterRounds === 0 ? 'completed' : 'cancelled');
    assert.equal(source.did('migrate_cancel').length, afterRounds === 0 ? 0 : 1);
    if (afterRounds === 0) assert.match(ends.notices.join(), /cannot be taken back/);
  }
});
