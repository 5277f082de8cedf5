import assert from 'node:assert/strict';
import test from 'node:test';
import { type Message, RawClient } from './raw-client.ts';
import { withServer } from './with-server.ts';

function desc(message: Message | undefined): unknown {
  return (message?.['error'] as { desc?: string } | undefined)?.desc;
}

function channel(addr: unknown): unknown {
  return { channels: [{ 'channel-type': 'main', addr }] };
}

const ADDRESSES: readonly [args: unknown, uri: string][] = [
  [{ uri: 'tcp:127.0.0.1:4444' }, 'tcp:127.0.0.1:4444'],
  [{ uri: 'unix:/x', detach: true, resume: false }, 'unix:/x'],
  [{ uri: 'unix:/x', channels: [] }, 'unix:/x'],
  [channel({ transport: 'socket', type: 'inet', host: '127.0.0.1', port: '4444' }), 'tcp:127.0.0.1:4444'],
  [channel({ transport: 'socket', type: 'inet', host: '::1', port: '4444' }), 'tcp:[::1]:4444'],
  [channel({ transport: 'socket', type: 'unix', path: '/x' }), 'unix:/x'],
  [channel({ transport: 'socket', type: 'fd', str: '5' }), 'fd:5'],
  [channel({ transport: 'exec', args: ['cat', "it's > here"] }), `exec:'cat' 'it'\\''s > here'`],
  [channel({ transport: 'file', filename: '/x', offset: 4096 }), 'file:/x,offset=4096'],
];

for (const [args, uri] of ADDRESSES) {
  test(`migrate and migrate-incoming ${JSON.stringify(args)}`, () =>
    withServer(async ({ host, path }) => {
      const client = await RawClient.negotiated(path);
      assert.deepEqual(await client.ask('migrate', args), { return: {} });
      const { detach, resume, ...where } = args as Record<string, unknown>;
      assert.deepEqual(await client.ask('migrate-incoming', { ...where, 'exit-on-error': false }), { return: {} });
      assert.deepEqual(host.asked, [`migrate ${uri}`, `migrateIncoming ${uri} exitOnError=false`]);
    }));
}

const REFUSED: readonly [command: string, args: unknown, desc: RegExp][] = [
  ['migrate', undefined, /'uri' or 'channels'/],
  ['migrate', { channels: [] }, /'uri' or 'channels'/],
  ['migrate', { uri: 5 }, /^Invalid parameter type for 'uri', expected: string$/],
  ['migrate', { uri: 'tcp:x:1', blk: true }, /^Parameter 'blk' is unexpected$/],
  ['migrate', { channels: [{ 'channel-type': 'main' }] }, /^Parameter 'channels\[0\].addr' is missing$/],
  [
    'migrate',
    channel({ transport: 'socket', type: 'inet', host: 'x' }),
    /^Parameter 'channels\[0\].addr.port' is missing$/,
  ],
  ['migrate', channel({ transport: 'rdma' }), /^Parameter 'transport' does not accept value 'rdma'$/],
  [
    'migrate',
    channel({ transport: 'file', filename: '/x', offset: 0, path: 1 }),
    /^Parameter 'channels\[0\].addr.path' is unexpected$/,
  ],
  [
    'migrate',
    {
      channels: [
        ...(channel({ transport: 'socket', type: 'fd', str: '1' }) as { channels: [] }).channels,
        ...(channel({ transport: 'socket', type: 'fd', str: '2' }) as { channels: [] }).channels,
      ],
    },
    /only one/,
  ],
  ['migrate', { uri: 'fd:1', ...(channel({ transport: 'socket', type: 'fd', str: '1' }) as object) }, /exclude/],
  ['migrate-continue', { state: 'asleep' }, /^Parameter 'state' does not accept value 'asleep'$/],
  ['migrate-set-capabilities', undefined, /^Parameter 'capabilities' is missing$/],
  ['migrate-set-capabilities', { capabilities: {} }, /^Invalid parameter type for 'capabilities', expected: array$/],
  [
    'migrate-set-capabilities',
    { capabilities: [3] },
    /^Invalid parameter type for 'capabilities\[0\]', expected: object$/,
  ],
  [
    'migrate-set-capabilities',
    { capabilities: [{ capability: 'xbzrle' }] },
    /^Parameter 'capabilities\[0\].state' is missing$/,
  ],
  [
    'migrate-set-capabilities',
    { capabilities: [{ capability: 'teleport', state: true }] },
    /^Parameter 'capability' does not accept value 'teleport'$/,
  ],
  ['migrate-set-capabilities', { capabilities: [{ capability: 'x-colo', state: true }] }, /'x-colo' is not supported/],
  ['migrate-set-parameters', { 'no-such': 1 }, /^Parameter 'no-such' is unexpected$/],
  ['migrate-set-parameters', { 'compress-level': 1 }, /^Parameter 'compress-level' is unexpected$/],
  ['migrate-set-parameters', { 'downtime-limit': 2_000_001 }, /'downtime-limit' expects .* 0 to 2000000 ms$/],
  ['migrate-set-parameters', { 'direct-io': 1 }, /^Invalid parameter type for 'direct-io', expected: boolean$/],
  ['migrate-set-parameters', { 'tls-creds': 3 }, /^Invalid parameter type for 'tls-creds', expected: StrOrNull$/],
];

test('refusals are GenericErrors that name the parameter, and reach no host', () =>
  withServer(async ({ host, path }) => {
    const client = await RawClient.negotiated(path);
    for (const [command, args, expected] of REFUSED) {
      assert.match(String(desc(await client.ask(command, args))), expected);
    }
    assert.deepEqual(host.asked, []);
    assert.deepEqual(host.settings.parameters(), (await client.ask('query-migrate-parameters'))?.['return']);
  }));

test('capabilities and parameters are set and shown', () =>
  withServer(async ({ host, path }) => {
    const client = await RawClient.negotiated(path);
    const change = { capabilities: [{ capability: 'return-path', state: true }] };
    assert.deepEqual(await client.ask('migrate-set-capabilities', change), { return: {} });
    const capabilities = (await client.ask('query-migrate-capabilities'))?.['return'] as {
      capability: string;
      state: boolean;
    }[];
    assert.deepEqual(
      capabilities.filter(({ state }) => state),
      change.capabilities,
    );
    assert.deepEqual(await client.ask('migrate-set-parameters', { 'max-bandwidth': 0, mode: 'normal' }), {
      return: {},
    });
    assert.equal(host.settings.parameter('max-bandwidth'), 0);
    const unlock = host.settings.lock();
    assert.match(String(desc(await client.ask('migrate-set-capabilities', change))), /in progress/);
    unlock();
  }));

test('a running migration is steered and asked', () =>
  withServer(async ({ host, path }) => {
    const client = await RawClient.negotiated(path);
    assert.deepEqual(await client.ask('query-migrate'), { return: {} });
    host.info = { status: 'pre-switchover', 'total-time': 12, 'x-waiting-for': 'migrate-continue' };
    assert.deepEqual(await client.ask('query-migrate'), { return: host.info });
    assert.deepEqual(await client.ask('migrate-continue', { state: 'pre-switchover' }), { return: {} });
    assert.deepEqual(await client.ask('migrate_cancel'), { return: {} });
    assert.deepEqual(await client.ask('migrate-start-postcopy'), { return: {} });
    assert.deepEqual(await client.ask('migrate-pause'), { return: {} });
    assert.deepEqual(await client.ask('migrate-recover', { uri: 'tcp:x:2' }), { return: {} });
    assert.deepEqual(await client.ask('migrate', { uri: 'tcp:x:1', resume: true }), { return: {} });
    assert.deepEqual(host.asked, [
      'migrateContinue pre-switchover',
      'migrateCancel',
      'migrateStartPostcopy',
      'migratePause',
      'migrateRecover tcp:x:2',
      'migrate tcp:x:1 resume',
    ]);
  }));

test('name, version and commands', () =>
  withServer(async ({ path }) => {
    const client = await RawClient.negotiated(path);
    assert.deepEqual(await client.ask('query-name'), { return: { name: 'fake' } });
    const version = (await client.ask('query-version'))?.['return'] as { package: string };
    assert.match(version.package, /^vmferry \d/);
    const commands = (await client.ask('query-commands'))?.['return'] as { name: string }[];
    assert.ok(commands.some(({ name }) => name === 'migrate'));
  }));
