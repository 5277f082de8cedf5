import assert from 'node:assert/strict';
import test from 'node:test';
import { COMMANDS, check, commandTable } from '../../src/control/index.ts';
import { introspect } from '../../src/control/introspection.ts';
import { RawClient } from './raw-client.ts';
import { withServer } from './with-server.ts';

test('every type that the schema mentions is in it, once', () => {
  const infos = introspect(commandTable(COMMANDS));
  const names = infos.map(({ name }) => name);
  assert.equal(new Set(names).size, names.length);
  for (const info of infos) {
    for (const type of mentioned(info)) assert.ok(names.includes(type), `${info.name} mentions ${type}`);
  }
});

function mentioned(info: object): string[] {
  return Object.entries(info).flatMap(([key, value]: [string, unknown]) => {
    if (/(^|-)type$/.test(key) && !['meta-type', 'json-type'].includes(key)) return [String(value)];
    return Array.isArray(value) ? value.filter((item) => typeof item === 'object').flatMap(mentioned) : [];
  });
}

test('replies are what their declarations say', () =>
  withServer(async ({ host, path }) => {
    host.info = { status: 'active', 'total-time': 1, 'socket-address': [{ type: 'unix', path: '/x' }] };
    const client = await RawClient.negotiated(path);
    for (const { name, returns } of COMMANDS) {
      if (!name.startsWith('query-')) continue;
      const reply = await client.ask(name);
      assert.ok(reply !== undefined && 'return' in reply, name);
      check(returns, reply['return'], name);
    }
  }));
