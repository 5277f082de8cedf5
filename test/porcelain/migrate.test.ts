/** `migrate` against scripted processes: each way in which the two ends can leave the guest, and what the driver makes of it. */
import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { migrate, type Outcome, PorcelainError } from '../../src/porcelain/index.ts';
import { parseAssignments } from '../../src/settings/index.ts';
import { FakeProcess, Refusal } from './fake-process.ts';

async function pair(t: TestContext) {
  const [source, destination] = [await FakeProcess.start(t), await FakeProcess.start(t)];
  destination.status = 'inmigrate';
  return { source, destination };
}

function move(source: FakeProcess, destination: FakeProcess, ...set: string[]): Promise<Outcome> {
  return migrate({ source: source.path, destination: { qmp: destination.path }, settings: parseAssignments(set) });
}

const FAILED = { status: 'failed', 'error-desc': 'Channel error' };

test('completed: figures of the source, states of both', async (t) => {
  const { source, destination } = await pair(t);
  source.on['migrate'] = () => {
    source.status = 'postmigrate';
    source.migration = { status: 'completed', 'total-time': 12, downtime: 3, ram: { transferred: 7 } };
    destination.status = 'running';
  };
  assert.deepEqual(await move(source, destination), {
    status: 'completed',
    totalTimeMs: 12,
    downtimeMs: 3,
    ram: { transferred: 7 },
    source: 'postmigrate',
    destination: 'running',
    message: 'The guest is running on the destination.',
  });
  const [{ uri: told }] = source.did('migrate') as [{ uri: string }];
  const [{ uri: listening }] = destination.did('migrate-incoming') as [{ uri: string }];
  assert.equal(told, listening);
  assert.match(told, /^unix:/);
});

test('failed before the switchover: the guest stays; the destination says why and is ended', async (t) => {
  const { source, destination } = await pair(t);
  source.on['migrate'] = () => {
    source.migration = FAILED;
    destination.migration = { status: 'failed', 'error-desc': 'no such device' };
  };
  const outcome = await move(source, destination);
  assert.equal(outcome.status, 'failed');
  assert.equal(outcome.source, 'running');
  assert.match(outcome.error?.message ?? '', /no such device/);
  assert.deepEqual(source.did('cont'), []);
  assert.equal(destination.did('quit').length, 1);
});

test('a source that is about to leave finish-migrate is waited for: it would refuse cont', async (t) => {
  const { source, destination } = await pair(t);
  let looks = 0;
  source.on['migrate'] = () => {
    source.status = 'finish-migrate';
    source.migration = FAILED;
    destination.migration = { status: 'failed' };
  };
  source.on['query-status'] = () => {
    if (source.status === 'finish-migrate' && ++looks > 3) source.status = 'postmigrate';
    return { running: source.status === 'running', status: source.status };
  };
  source.on['cont'] = () => {
    if (source.status === 'finish-migrate') throw new Refusal('Migration is not finalized yet');
    source.status = 'running';
  };
  const outcome = await move(source, destination);
  assert.equal(outcome.source, 'running');
  assert.match(outcome.message, /is running on the source again/);
});

test('unconfirmed, and the destination runs: it is completed', async (t) => {
  const { source, destination } = await pair(t);
  source.on['migrate'] = () => {
    source.status = 'postmigrate';
    source.migration = FAILED;
    destination.status = 'running';
  };
  const outcome = await move(source, destination);
  assert.equal(outcome.status, 'completed');
  assert.deepEqual(source.did('cont'), []);
});

test('unconfirmed, and the destination process is gone: the guest is taken back', async (t) => {
  const { source, destination } = await pair(t);
  source.on['migrate'] = () => {
    source.status = 'postmigrate';
    source.migration = FAILED;
    destination.die();
  };
  const outcome = await move(source, destination);
  assert.equal(outcome.status, 'failed');
  assert.equal(outcome.destination, 'gone');
  assert.equal(outcome.source, 'running');
  assert.equal(source.did('cont').length, 1);
});

test('unconfirmed, a guest that slept before, destination gone: it is let sleep on', async (t) => {
  const { source, destination } = await pair(t);
  source.status = 'suspended';
  source.on['migrate'] = () => {
    source.status = 'postmigrate';
    source.migration = FAILED;
    destination.die();
  };
  source.on['cont'] = () => {
    source.status = 'suspended';
  };
  const outcome = await move(source, destination);
  assert.equal(outcome.source, 'suspended');
  assert.match(outcome.message, /is suspended on the source again/);
});

test('unconfirmed, a guest that was paused before, destination gone: it is not set running', async (t) => {
  const { source, destination } = await pair(t);
  source.status = 'paused';
  source.on['migrate'] = () => {
    source.status = 'postmigrate';
    source.migration = FAILED;
    destination.die();
  };
  assert.equal((await move(source, destination)).status, 'failed');
  assert.deepEqual(source.did('cont'), []);
});

test('unconfirmed, and the destination cannot be asked: nothing is done on a guess', async (t) => {
  const source = await FakeProcess.start(t);
  source.on['migrate'] = () => {
    source.status = 'postmigrate';
    source.migration = FAILED;
  };
  const outcome = await migrate({
    source: source.path,
    destination: { uri: 'tcp:198.51.100.7:1' },
    settings: parseAssignments([]),
  });
  assert.equal(outcome.status, 'failed');
  assert.match(outcome.message, /may run on the destination.*'cont'/);
  assert.deepEqual(source.did('cont'), []);
});

test('both run: the destination is stopped at once, and the message says so', async (t) => {
  const { source, destination } = await pair(t);
  source.on['migrate'] = () => {
    source.migration = FAILED;
    destination.status = 'running';
  };
  const outcome = await move(source, destination);
  assert.equal(outcome.status, 'failed');
  assert.equal((outcome.error as PorcelainError).code, 'SIDES_DISAGREE');
  assert.equal(destination.status, 'paused');
  assert.equal(source.status, 'running');
});

test('what was to be done about it fails: the message says that, and what state it left', async (t) => {
  const refuse = () => {
    throw new Refusal('the disk is locked');
  };
  const unconfirmed = await pair(t);
  unconfirmed.source.on['migrate'] = () => {
    unconfirmed.source.status = 'postmigrate';
    unconfirmed.source.migration = FAILED;
    unconfirmed.destination.die();
  };
  unconfirmed.source.on['cont'] = refuse;
  const stuck = await move(unconfirmed.source, unconfirmed.destination);
  assert.deepEqual([stuck.status, stuck.source], ['failed', 'postmigrate']);
  assert.match(stuck.message, /cannot let it run again.*the disk is locked/);
  const both = await pair(t);
  both.source.on['migrate'] = () => {
    both.source.migration = FAILED;
    both.destination.status = 'running';
  };
  both.destination.on['stop'] = refuse;
  assert.match((await move(both.source, both.destination)).message, /RUNS ON BOTH SIDES/);
});

test('the source dies: completed if the guest has arrived, else lost', async (t) => {
  for (const arrived of [true, false]) {
    const { source, destination } = await pair(t);
    source.on['migrate'] = () => {
      source.on['query-migrate'] = () => {
        source.die();
        if (arrived) destination.status = 'running';
        else destination.migration = { status: 'failed' };
        return { status: 'active' };
      };
    };
    const outcome = await move(source, destination);
    assert.equal(outcome.source, 'gone');
    assert.equal(outcome.status, arrived ? 'completed' : 'failed');
  }
});

test('the source completes, but the destination is gone: not completed', async (t) => {
  const { source, destination } = await pair(t);
  source.on['migrate'] = () => {
    source.status = 'postmigrate';
    source.migration = { status: 'completed' };
    destination.die();
  };
  const outcome = await move(source, destination);
  assert.equal(outcome.status, 'failed');
  assert.deepEqual(source.did('cont'), []);
});

test('a destination without exit-on-error is asked again without it', async (t) => {
  const { source, destination } = await pair(t);
  destination.on['migrate-incoming'] = (args) => {
    if ('exit-on-error' in args) throw new Refusal("Parameter 'exit-on-error' is unexpected");
  };
  source.on['migrate'] = () => {
    source.migration = { status: 'completed' };
    destination.status = 'running';
  };
  assert.equal((await move(source, destination)).status, 'completed');
  assert.deepEqual(
    destination.did('migrate-incoming').map((args) => Object.keys(args)),
    [['uri', 'exit-on-error'], ['uri']],
  );
});

test('settings: what must match on both sides, the rest on the source, the port that was really chosen', async (t) => {
  const { source, destination } = await pair(t);
  destination.migration = { status: 'setup', 'socket-address': [{ type: 'inet', host: '127.0.0.1', port: '7' }] };
  source.on['migrate'] = () => {
    source.migration = { status: 'completed' };
    destination.status = 'running';
  };
  await migrate({
    source: source.path,
    destination: { qmp: destination.path, uri: 'tcp:0.0.0.0:0' },
    settings: parseAssignments(['multifd=on', 'auto-converge=on', 'multifd-channels=4', 'max-bandwidth=1G']),
  });
  assert.deepEqual(source.capabilities, { 'return-path': true, multifd: true, 'auto-converge': true });
  assert.deepEqual(destination.capabilities, { 'return-path': true, multifd: true, 'auto-converge': false });
  assert.deepEqual(source.did('migrate-set-parameters'), [{ 'multifd-channels': 4, 'max-bandwidth': 1024 ** 3 }]);
  assert.deepEqual(destination.did('migrate-set-parameters'), [{ 'multifd-channels': 4 }]);
  assert.deepEqual(source.did('migrate'), [{ uri: 'tcp:127.0.0.1:7' }]);
});

test('refused before anything moves: a setting this version does not know, a side in the wrong state', async (t) => {
  const { source, destination } = await pair(t);
  const code = async (moving: Promise<Outcome>) =>
    moving.then(
      () => 'none',
      (error) => (error instanceof PorcelainError ? error.code : String(error)),
    );
  assert.equal(await code(move(source, destination, 'mapped-ram=on')), 'PEER_SETTING');
  assert.equal(await code(move(source, source)), 'PEER_STATE');
  assert.equal(await code(move(destination, destination)), 'PEER_STATE');
  assert.deepEqual(source.did('migrate'), []);
  assert.deepEqual(destination.did('migrate-incoming'), []);
});
