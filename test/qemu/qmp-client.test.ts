import assert from 'node:assert/strict';
import { Duplex } from 'node:stream';
import test from 'node:test';
import { FerryError } from '../../src/base/index.ts';
import { QmpClient, QmpError } from '../../src/qemu/index.ts';

const GREETING =
  '{"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, "capabilities": ["oob"]}}\n';

interface Request {
  execute: string;
  id: number;
  arguments?: Record<string, unknown>;
}

/** A scripted peer: `answer` sees each request and says what to send back. */
function peer(answer: (request: Request, say: (text: string) => void) => void, greeting = GREETING): Duplex {
  const stream = new Duplex({
    read() {},
    write(bytes: Buffer, _encoding, done) {
      const request = JSON.parse(bytes.toString()) as Request;
      if (request.execute === 'qmp_capabilities') stream.push(`{"return": {}, "id": ${request.id}}\r\n`);
      else answer(request, (text) => stream.push(text));
      done();
    },
  });
  stream.push(greeting);
  return stream;
}

function code(expected: string) {
  return (error: unknown) => error instanceof FerryError && error.code === expected;
}

test('commands are pipelined and matched by id, whatever order the replies have', async () => {
  const asked: Request[] = [];
  const client = await QmpClient.over(
    peer((request, say) => {
      asked.push(request);
      if (asked.length < 2) return;
      for (const { id, execute } of asked.toReversed()) say(`{"return": {"name": "${execute}"}, "id": ${id}}\n`);
    }),
    'peer',
  );
  const both = [client.executeAny('one'), client.executeAny('two', { a: 1 })];
  assert.deepEqual(await Promise.all(both), [{ name: 'one' }, { name: 'two' }]);
  assert.deepEqual(asked[1]?.arguments, { a: 1 });
  assert.equal(client.greeting.version.qemu.major, 7);
  client.close();
});

test('an error reply is a QmpError with class, desc and command', async () => {
  const client = await QmpClient.over(
    peer(({ id }, say) => say(`{"error": {"class": "CommandNotFound", "desc": "no such thing"}, "id": ${id}}\n`)),
    'peer',
  );
  await assert.rejects(client.execute('stop'), (error) => {
    assert(error instanceof QmpError);
    assert.deepEqual([error.class, error.desc, error.command], ['CommandNotFound', 'no such thing', 'stop']);
    return true;
  });
  client.close();
});

test('lines may be cut anywhere and events may come between', async () => {
  const client = await QmpClient.over(
    peer(({ id }, say) => {
      const text = `{"event": "STOP", "timestamp": {"seconds": 2, "microseconds": 3}}\n{"return": {"running": false}, "id": ${id}}\n`;
      for (const letter of text) say(letter);
    }),
    'peer',
  );
  const stopped = client.waitForEvent('STOP', { timeoutMs: 5000 });
  assert.deepEqual(await client.execute('query-status'), { running: false });
  assert.equal((await stopped).timestampUs, 2_000_003);
  client.close();
});

test('the end of the connection rejects everything that waits', async () => {
  const stream = peer(() => stream.destroy(new Error('reset')));
  const client = await QmpClient.over(stream, 'peer');
  const event = client.waitForEvent('STOP');
  const outcomes = await Promise.allSettled([client.execute('query-status'), event]);
  for (const outcome of outcomes) assert(outcome.status === 'rejected' && code('QMP_CLOSED')(outcome.reason));
  await client.closed;
  await assert.rejects(client.execute('stop'), code('QMP_CLOSED'));
});

test('deadline and signal end a wait; a late reply is not a stranger', async () => {
  const late: (() => void)[] = [];
  const client = await QmpClient.over(
    peer(({ id, execute }, say) => {
      if (execute === 'stop') late.push(() => say(`{"return": {}, "id": ${id}}\n`));
      else say(`{"return": "ok", "id": ${id}}\n`);
    }),
    'peer',
  );
  await assert.rejects(client.execute('stop', undefined, { timeoutMs: 5 }), code('QMP_TIMEOUT'));
  const abort = new AbortController();
  const waiting = client.execute('stop', undefined, { signal: abort.signal });
  abort.abort();
  await assert.rejects(waiting, code('QMP_ABORTED'));
  for (const answer of late) answer();
  assert.equal(await client.executeAny('next'), 'ok');
  client.close();
});

for (const [what, text] of [
  ['not JSON', 'HTTP/1.1 400\n'],
  ['not an object', '[1]\n'],
  ['a reply to nothing', '{"return": {}, "id": 77}\n'],
] as const) {
  test(`${what} ends the session by name`, async () => {
    const client = await QmpClient.over(
      peer((_, say) => say(text)),
      'peer',
    );
    await assert.rejects(client.execute('stop'), code('QMP_MALFORMED'));
  });
}

test('a peer that does not greet is given up', async () => {
  await assert.rejects(
    QmpClient.over(
      peer(() => {}, ''),
      'peer',
      { timeoutMs: 20 },
    ),
    code('QMP_CONNECT_FAILED'),
  );
  await assert.rejects(QmpClient.connect('/nonexistent/qmp.sock'), code('QMP_CONNECT_FAILED'));
});

test('waitForMigration returns on the wanted state and throws on another end', async () => {
  const states = ['setup', 'active', 'failed'];
  const client = await QmpClient.over(
    peer(({ id }, say) => {
      say(`{"return": {"status": "${states.shift()}", "error-desc": "link down"}, "id": ${id}}\n`);
      say('{"event": "MIGRATION", "data": {"status": "active"}}\n');
    }),
    'peer',
  );
  assert.equal((await client.waitForMigration(['active', 'completed'])).status, 'active');
  await assert.rejects(client.waitForMigration(['completed']), (error) => {
    assert(code('QMP_MIGRATION_ENDED')(error) && String(error).includes('link down'));
    return true;
  });
  client.close();
});
