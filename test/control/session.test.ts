import assert from 'node:assert/strict';
import { once } from 'node:events';
import test from 'node:test';
import { JSON_TEXT_BYTES_MAX } from '../../src/control/framing.ts';
import { defineCommand, empty } from '../../src/control/index.ts';
import { type Message, RawClient } from './raw-client.ts';
import { withServer } from './with-server.ts';

const STATUS = { running: true, status: 'running' };

function errorOf(message: Message | undefined): { class: string; desc: string } {
  assert(
    message !== undefined && typeof message['error'] === 'object' && message['error'] !== null,
    JSON.stringify(message),
  );
  return message['error'] as { class: string; desc: string };
}

test('greeting, then nothing but the negotiation, then commands', () =>
  withServer(async ({ path }) => {
    const client = new RawClient(path);
    const greeting = await client.next();
    assert.match(
      JSON.stringify(greeting),
      /^\{"QMP":\{"version":\{"qemu":\{.*"major":11\},"package":"vmferry .*"\},"capabilities":\[\]\}\}$/,
    );
    assert.equal(errorOf(await client.ask('query-status')).class, 'CommandNotFound');
    assert.equal(errorOf(await client.ask('qmp_capabilities', { enable: ['oob'] })).class, 'GenericError');
    assert.equal(errorOf(await client.ask('query-status')).class, 'CommandNotFound');
    assert.deepEqual(await client.ask('qmp_capabilities', { enable: [] }), { return: {} });
    assert.deepEqual(await client.ask('query-status'), { return: STATUS });
    assert.equal(errorOf(await client.ask('qmp_capabilities')).class, 'CommandNotFound');
  }));

test('an id of any kind comes back, with replies and with errors', () =>
  withServer(async ({ path }) => {
    const client = await RawClient.negotiated(path);
    for (const id of [1, 'x', null, { a: [1] }]) {
      client.send({ execute: 'query-status', id });
      assert.deepEqual(await client.next(), { return: STATUS, id });
      client.send({ execute: 'nonsense', id });
      assert.deepEqual((await client.next())?.['id'], id);
    }
  }));

test('requests come split at every byte, or many at once', () =>
  withServer(async ({ path }) => {
    const client = await RawClient.negotiated(path);
    client.socket.setNoDelay(true);
    const request = '{"execute" : "query-status",\n "id": "ä"}';
    for (const byte of Buffer.from(request)) {
      client.write(Uint8Array.of(byte));
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    assert.deepEqual(await client.next(), { return: STATUS, id: 'ä' });
    const ids = Array.from({ length: 500 }, (_, id) => id);
    client.write(ids.map((id) => `{"execute":"query-status","id":${id}}`).join(''));
    for (const id of ids) assert.deepEqual(await client.next(), { return: STATUS, id });
  }));

test('commands of a session run one after another; those of another session do not wait', () =>
  withServer(async ({ host, path }) => {
    let release = () => {};
    host.onStop = () => new Promise<void>((resolve) => (release = resolve));
    const slow = await RawClient.negotiated(path);
    const quick = await RawClient.negotiated(path);
    slow.write('{"execute":"stop","id":1}{"execute":"cont","id":2}');
    assert.deepEqual(await quick.ask('query-status'), { return: STATUS });
    assert.deepEqual(host.asked, ['stop']);
    release();
    const [stopped, first, resumed, second] = [
      await slow.next(),
      await slow.next(),
      await slow.next(),
      await slow.next(),
    ];
    assert.deepEqual(
      [stopped?.['event'], first, resumed?.['event'], second],
      ['STOP', { return: {}, id: 1 }, 'RESUME', { return: {}, id: 2 }],
    );
  }));

test('events reach every session that has negotiated, with a time', () =>
  withServer(async ({ host, path }) => {
    const clients = [await RawClient.negotiated(path), await RawClient.negotiated(path)];
    const shy = new RawClient(path);
    await shy.next();
    host.emit({ event: 'MIGRATION', data: { status: 'active' } });
    for (const client of clients) {
      const { timestamp, ...event } = (await client.next()) as { timestamp: { seconds: number; microseconds: number } };
      assert.deepEqual(event, { event: 'MIGRATION', data: { status: 'active' } });
      assert.ok(Math.abs(timestamp.seconds - Date.now() / 1000) < 60);
      assert.ok(Number.isInteger(timestamp.microseconds) && timestamp.microseconds < 1_000_000);
    }
    assert.deepEqual(await shy.ask('qmp_capabilities'), { return: {} }, 'the event was not kept for it');
  }));

const GARBAGE: readonly [text: string, desc: RegExp][] = [
  ['{"execute" "query-status"}', /^JSON parse error/],
  ['\x80\xff\n', /^JSON parse error/],
  ['}\n', /^JSON parse error/],
  ['tru\n', /^JSON parse error/],
  ['[]', /must be a JSON object$/],
  ['3\n', /must be a JSON object$/],
  ['{"exec":"query-status"}', /'exec' is unexpected/],
  ['{}', /member 'execute' is missing/],
  ['{"execute":3}', /'execute' must be a string$/],
  ['{"execute":"query-status","arguments":[]}', /'arguments' must be an object/],
  ['{"execute":"query-status","foo":1}', /'foo' is unexpected/],
  ['{"execute":"query-status","arguments":{"x":1}}', /'x' is unexpected/],
  ['{"execute":"constructor"}', /no command 'constructor'/],
];

test('garbage is refused with a reason and the session goes on', () =>
  withServer(async ({ path }) => {
    const client = await RawClient.negotiated(path);
    for (const [text, desc] of GARBAGE) {
      client.write(Buffer.from(text, 'latin1'));
      assert.match(errorOf(await client.next()).desc, desc, text);
    }
    assert.deepEqual(await client.ask('query-status'), { return: STATUS });
  }));

test('a message longer than the bound ends its session and no other', () =>
  withServer(async ({ path }) => {
    const other = await RawClient.negotiated(path);
    const client = await RawClient.negotiated(path);
    client.write(`{"execute":"${'x'.repeat(JSON_TEXT_BYTES_MAX)}"}{"execute":"query-status"}`);
    assert.match(errorOf(await client.next()).desc, /too long/);
    assert.equal(await client.next(), undefined);
    client.socket.destroy();
    assert.deepEqual(await other.ask('query-status'), { return: STATUS });
  }));

test('a client that dies in the middle of a command harms nobody', () =>
  withServer(async ({ host, path }) => {
    let release = () => {};
    const begun = new Promise<void>((resolve) => {
      host.onStop = () => {
        resolve();
        return new Promise<void>((resolve) => (release = resolve));
      };
    });
    const dying = await RawClient.negotiated(path);
    dying.send({ execute: 'stop' });
    await begun;
    dying.socket.destroy();
    await once(dying.socket, 'close');
    const other = await RawClient.negotiated(path);
    release();
    assert.equal((await other.next())?.['event'], 'STOP', 'the command is done all the same');
    assert.deepEqual(await other.ask('query-status'), { return: STATUS });
  }));

test('a client that closes its sending half still gets its replies, then the end', () =>
  withServer(async ({ path }) => {
    const client = await RawClient.negotiated(path);
    client.write('{"execute":"query-status","id":1}{"execute":"query-status","id":2}');
    client.socket.end();
    assert.equal((await client.next())?.['id'], 1);
    assert.equal((await client.next())?.['id'], 2);
    assert.equal(await client.next(), undefined);
  }));

test('a client that does not read is cut off once too many events wait for it', () =>
  withServer(async ({ host, path }) => {
    const deaf = await RawClient.negotiated(path);
    deaf.socket.pause();
    const other = await RawClient.negotiated(path);
    for (let round = 0; round < 20_000; round++) {
      host.emit({ event: 'MIGRATION_PASS', data: { pass: round } });
      if (round % 100 === 99) await other.next();
    }
    deaf.socket.resume();
    let last: Message | undefined;
    let count = 0;
    for (let message = await deaf.next(); message !== undefined; message = await deaf.next()) {
      last = message;
      count++;
    }
    assert.ok(count < 20_000, `${count} events came`);
    assert.equal(last?.['event'], 'MIGRATION_PASS');
  }));

test('what a command throws becomes a GenericError that tells its causes', () =>
  withServer(async ({ host, path }) => {
    host.onMigrate = async () => {
      throw new Error('the address is wrong', { cause: new Error('no such port') });
    };
    const client = await RawClient.negotiated(path);
    assert.deepEqual(errorOf(await client.ask('migrate', { uri: 'tcp:x:1' })), {
      class: 'GenericError',
      desc: 'the address is wrong: no such port',
    });
  }));

const ECHO = defineCommand({
  name: 'x-echo',
  doc: 'For this test.',
  arguments: empty,
  returns: empty,
  run: () => ({}),
});

test('a process may add commands; they are checked and listed like all others', () =>
  withServer(
    async ({ path }) => {
      const client = await RawClient.negotiated(path);
      assert.deepEqual(await client.ask('x-echo'), { return: {} });
      assert.match(errorOf(await client.ask('x-echo', { x: 1 })).desc, /'x' is unexpected/);
      const listed = (await client.ask('query-commands'))?.['return'] as { name: string }[];
      assert.ok(listed.some(({ name }) => name === 'x-echo'));
      const schema = (await client.ask('query-qmp-schema'))?.['return'] as { name: string }[];
      assert.ok(schema.some(({ name }) => name === 'x-echo'));
    },
    [ECHO],
  ));
