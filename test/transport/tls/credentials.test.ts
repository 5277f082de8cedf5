/** Credentials that cannot be used are refused when they are loaded, by the file and what is wrong with it. */
import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { after } from 'node:test';
import { CREDENTIALS_DEFAULTS, type CredentialsOptions, TlsCredentials } from '../../../src/transport/index.ts';
import { hasCode } from '../../contract/channel.ts';
import { identity, keyPem } from '../../support/certificates.ts';
import { TlsFolders } from '../../support/tls-folders.ts';

const folders = new TlsFolders();
after(() => folders.close());

const other = identity({ name: 'another authority', authority: true });
const encrypted = generateKeyPairSync('ec', {
  namedCurve: 'prime256v1',
  privateKeyEncoding: { type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'secret' },
  publicKeyEncoding: { type: 'spki', format: 'pem' },
}).privateKey;

/** A good folder in which one file is not. */
function spoiled(name: string, file: string, text: string | undefined): string {
  const dir = folders.x509(name);
  if (text === undefined) rmSync(join(dir, file));
  else writeFileSync(join(dir, file), text);
  return dir;
}

const SERVER = { kind: 'x509', endpoint: 'server' } as const;
const CLIENT = { kind: 'x509', endpoint: 'client' } as const;
const PSK_SERVER = { kind: 'psk', endpoint: 'server' } as const;
const PSK_CLIENT = { kind: 'psk', endpoint: 'client' } as const;

const REFUSED: readonly [string, Partial<CredentialsOptions>, () => string, RegExp][] = [
  ['no folder', SERVER, () => '/nowhere', /\/nowhere\/ca-cert\.pem: is not there/],
  ['no authority', CLIENT, () => spoiled('1', 'ca-cert.pem', undefined), /ca-cert\.pem: is not there/],
  ['no certificate', SERVER, () => spoiled('2', 'server-cert.pem', undefined), /server-cert\.pem: is not there/],
  ['no key', SERVER, () => spoiled('3', 'server-key.pem', undefined), /server-key\.pem: is not there/],
  [
    'a certificate of a client without its key',
    CLIENT,
    () => spoiled('4', 'client-key.pem', undefined),
    /client-key\.pem: is not there/,
  ],
  ['an empty file', SERVER, () => spoiled('5', 'server-cert.pem', ''), /server-cert\.pem: holds no certificate/],
  [
    'no certificate inside',
    SERVER,
    () => spoiled('6', 'server-cert.pem', '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n'),
    /holds what is no certificate/,
  ],
  ['no key inside', SERVER, () => spoiled('7', 'server-key.pem', 'x'), /server-key\.pem: is no private key/],
  ['a key with a passphrase', SERVER, () => spoiled('8', 'server-key.pem', encrypted), /without a passphrase/],
  [
    'the key of another',
    SERVER,
    () => spoiled('9', 'server-key.pem', keyPem(other.key)),
    /is not the key of server-cert\.pem/,
  ],
  [
    'an expired one',
    SERVER,
    () => folders.x509('10', { server: folders.server({ from: -9, to: -1 }) }),
    /vmferry server: has expired \(/,
  ],
  [
    'one of tomorrow',
    CLIENT,
    () => folders.x509('11', { client: folders.client({ from: 1 }) }),
    /vmferry client: is not valid yet/,
  ],
  [
    'one of another authority',
    SERVER,
    () => spoiled('12', 'ca-cert.pem', other.certificate),
    /is not issued by an authority in ca-cert\.pem/,
  ],
  [
    'one for clients at a server',
    SERVER,
    () => folders.x509('13', { server: folders.server({ purposes: ['client'] }) }),
    /is not made for a server/,
  ],
  ['no list inside', SERVER, () => spoiled('14', 'ca-crl.pem', 'x'), /ca-crl\.pem: is refused/],
  ['no keys', PSK_SERVER, () => folders.text('15', 'other', ''), /keys\.psk: is not there/],
  ['an empty file of keys', PSK_SERVER, () => folders.text('16', 'keys.psk', '\n'), /keys\.psk: holds no key/],
  [
    'a line without a key',
    PSK_SERVER,
    () => folders.text('17', 'keys.psk', 'qemu:00\nroot\n'),
    /line 2: user:key is wanted/,
  ],
  [
    'a key that is no hexadecimal',
    PSK_SERVER,
    () => folders.text('18', 'keys.psk', 'qemu:abc\n'),
    /line 1: user:key is wanted/,
  ],
  [
    'a key that is too long',
    PSK_SERVER,
    () => folders.text('19', 'keys.psk', `qemu:${'00'.repeat(257)}\n`),
    /at most 256 bytes/,
  ],
  [
    'a user that is too long',
    PSK_SERVER,
    () => folders.text('20', 'keys.psk', `${'u'.repeat(129)}:00\n`),
    /at most 128 bytes/,
  ],
  [
    'two keys of one user',
    PSK_SERVER,
    () => folders.text('21', 'keys.psk', 'qemu:00\nqemu:01\n'),
    /line 2: user 'qemu' has a key already/,
  ],
  ['no key of the user', PSK_CLIENT, () => folders.text('22', 'keys.psk', 'root:00\n'), /holds no key of user 'qemu'/],
];

const load = (options: Partial<CredentialsOptions>, dir: string) =>
  new TlsCredentials({ kind: 'x509', endpoint: 'server', ...CREDENTIALS_DEFAULTS, ...options, dir });

for (const [what, options, folder, why] of REFUSED) {
  test(`refused: ${what}`, () => {
    const dir = folder();
    assert.throws(() => load(options, dir), hasCode('TRANSPORT_TLS_CREDENTIALS'));
    assert.throws(() => load(options, dir), why);
  });
}

test('what a side does not need may be missing', () => {
  load(CLIENT, folders.x509('client only', { server: undefined, client: undefined }));
  load(SERVER, folders.x509('server only', { client: undefined }));
  load(SERVER, folders.x509('with list', { revoked: [] }));
  load(PSK_SERVER, folders.text('many keys', 'keys.psk', 'a:00\r\nb:11\n\n'));
});
