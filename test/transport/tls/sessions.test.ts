import assert from 'node:assert/strict';
import test, { after } from 'node:test';
import {
  type Channel,
  type CredentialsOptions,
  connect,
  listen,
  TlsCredentials,
  type TlsTerms,
} from '../../../src/transport/index.ts';
import { hasCode } from '../../contract/channel.ts';
import { identity } from '../../support/certificates.ts';
import { CLIENT_NAME, HOST, TlsFolders } from '../../support/tls-folders.ts';

const folders = new TlsFolders();
after(() => folders.close());

const DEADLINE_MS = 20_000;
const LOOPBACK = { kind: 'tcp', host: '127.0.0.1', port: 0 } as const;

const DIRS = {
  good: folders.x509('good'),
  psk: folders.psk('psk'),
  otherPsk: folders.psk('other-psk', true),
  noClient: folders.x509('no-client', { client: undefined }),
  onlyIp: folders.x509('only-ip', { server: folders.server({ ips: ['127.0.0.1'] }) }),
  onlyHost: folders.x509('only-host', { server: folders.server({ hosts: [HOST] }) }),
  wrongIp: folders.x509('wrong-ip', { server: folders.server({ ips: ['10.0.0.1'] }) }),
  hostile: folders.x509('hostile', { client: folders.client({ name: 'hostile client' }) }),
  stranger: folders.x509('stranger', strangers()),
  revoking: '',
};
const revoked = folders.client();
DIRS.revoking = folders.x509('revoking', { client: revoked, revoked: [revoked] });

function strangers() {
  const authority = identity({ name: 'another authority', authority: true });
  const options = { issuer: authority, ips: ['127.0.0.1'] };
  return { authority, server: folders.server(options), client: folders.client({ issuer: authority }) };
}

interface Side extends Partial<Pick<TlsTerms, 'hostname' | 'identity'>> {
  readonly dir: keyof typeof DIRS;
  readonly kind?: 'psk';
  readonly anyPeer?: true;
  readonly username?: string;
}

interface Case {
  readonly name: string;
  readonly server: Side;
  readonly client: Side;
  /** What the client is told; undefined: they come together. */
  readonly refused?: RegExp;
}

const CASES: readonly Case[] = [
  { name: 'x509, the host of the address', server: { dir: 'onlyIp' }, client: { dir: 'good' } },
  { name: 'x509, another name that is given', server: { dir: 'onlyHost' }, client: { dir: 'good', hostname: HOST } },
  { name: 'x509, the server asks no client', server: { dir: 'good', anyPeer: true }, client: { dir: 'noClient' } },
  {
    name: 'x509, a client that is expected',
    server: { dir: 'good', identity: `CN=${CLIENT_NAME}` },
    client: { dir: 'good' },
  },
  { name: 'x509, a client that asks no server', server: { dir: 'wrongIp' }, client: { dir: 'good', anyPeer: true } },
  { name: 'psk', server: { dir: 'psk', kind: 'psk' }, client: { dir: 'psk', kind: 'psk' } },
  { name: 'another address', server: { dir: 'wrongIp' }, client: { dir: 'good' }, refused: /IP address mismatch/ },
  {
    name: 'another name',
    server: { dir: 'onlyIp' },
    client: { dir: 'good', hostname: HOST },
    refused: /hostname mismatch/i,
  },
  {
    name: 'a name without an end',
    server: { dir: 'good' },
    client: { dir: 'good', hostname: `${HOST}\0.evil` },
    refused: /no name/,
  },
  {
    name: 'a server of another authority',
    server: { dir: 'stranger', anyPeer: true },
    client: { dir: 'good' },
    refused: /self-signed certificate in certificate chain/,
  },
  {
    name: 'a client of another authority',
    server: { dir: 'good' },
    client: { dir: 'stranger', anyPeer: true },
    refused: /ended|broken off|unknown ca/,
  },
  {
    name: 'a client without a certificate',
    server: { dir: 'good' },
    client: { dir: 'noClient' },
    refused: /ended|broken off|certificate required/,
  },
  {
    name: 'a client that is not expected',
    server: { dir: 'good', identity: `CN=${CLIENT_NAME}` },
    client: { dir: 'hostile' },
    refused: /ended|broken off|lost/,
  },
  {
    name: 'a client whose certificate was taken back',
    server: { dir: 'revoking' },
    client: { dir: 'revoking' },
    refused: /ended|broken off|revoked/,
  },
  {
    name: 'another key',
    server: { dir: 'psk', kind: 'psk' },
    client: { dir: 'otherPsk', kind: 'psk' },
    refused: /ended|broken off|alert|binder/,
  },
  {
    name: 'certificate and key',
    server: { dir: 'good' },
    client: { dir: 'psk', kind: 'psk' },
    refused: /self-signed|alert/,
  },
  { name: 'key and certificate', server: { dir: 'psk', kind: 'psk' }, client: { dir: 'good' }, refused: /alert/ },
];

function terms(endpoint: 'client' | 'server', side: Side): TlsTerms {
  const options: CredentialsOptions = {
    kind: side.kind ?? 'x509',
    endpoint,
    dir: DIRS[side.dir],
    verifyPeer: side.anyPeer !== true,
    username: side.username ?? 'qemu',
  };
  const { hostname, identity } = side;
  return { credentials: new TlsCredentials(options), hostname, identity };
}

/** All of a channel, to its end. */
async function all(channel: Channel): Promise<string> {
  let text = '';
  for (let chunk = await channel.read(); chunk !== null; chunk = await channel.read())
    text += chunk.bytes.toString('latin1', chunk.start, chunk.end);
  return text;
}

for (const { name, server, client, refused } of CASES) {
  test(`${refused === undefined ? 'taken' : 'refused'}: ${name}`, { timeout: DEADLINE_MS }, async () => {
    const abort = new AbortController();
    const listener = await listen(LOOPBACK, { tls: terms('server', server) });
    const arriving = listener.accept(abort.signal);
    arriving.catch(() => {});
    const going = (async () => {
      const channel = await connect(listener.address, { tls: terms('client', client) });
      try {
        if (refused === undefined) await channel.write(Buffer.from('from the client'));
        // With TLS 1.3 a client hears that it is refused when it reads.
        else await all(channel);
        return channel;
      } catch (error) {
        channel.destroy();
        throw error;
      }
    })();
    try {
      if (refused !== undefined) {
        await assert.rejects(going, refused);
        // Who is refused never arrives.
        assert.equal(
          await Promise.race([arriving.then(() => 'arrived'), until(() => listener.refusals!.count > 0)]),
          undefined,
        );
        assert.equal(listener.refusals!.count, 1);
        return;
      }
      const [near, far] = await Promise.all([going, arriving]);
      await far.write(Buffer.from('from the server'));
      await far.end();
      await near.end();
      assert.deepEqual(await Promise.all([all(near), all(far)]), ['from the server', 'from the client']);
      near.destroy();
      far.destroy();
      await Promise.all([near.closed, far.closed]);
    } finally {
      abort.abort();
      listener.close();
    }
  });
}

async function until(met: () => boolean): Promise<void> {
  while (!met()) await new Promise((resolve) => setTimeout(resolve, 5));
}

test('a connection that ends without its session is cut off', {
  timeout: DEADLINE_MS,
}, async () => {
  const listener = await listen(LOOPBACK, { tls: terms('server', { dir: 'psk', kind: 'psk' }) });
  const [near, far] = await Promise.all([
    connect(listener.address, { tls: terms('client', { dir: 'psk', kind: 'psk' }) }),
    listener.accept(),
  ]);
  await near.write(Buffer.from('so far'));
  near.destroy();
  await assert.rejects(all(far), hasCode('TRANSPORT_TLS_CUT'));
  far.destroy();
  listener.close();
});
