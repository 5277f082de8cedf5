import assert from 'node:assert/strict';
import test from 'node:test';
import { type ObjectOptions, objectOptions, parseObject } from '../../src/settings/index.ts';

const LEGAL: readonly [string, ObjectOptions][] = [
  [
    'tls-creds-x509,id=tls0,dir=/etc/pki,verify-peer=off,endpoint=server',
    {
      'qom-type': 'tls-creds-x509',
      id: 'tls0',
      endpoint: 'server',
      dir: '/etc/pki',
      'verify-peer': false,
      'sanity-check': true,
    },
  ],
  [
    'tls-creds-psk,id=a.b-c_9,dir=keys',
    {
      'qom-type': 'tls-creds-psk',
      id: 'a.b-c_9',
      endpoint: 'client',
      dir: 'keys',
      'verify-peer': true,
      username: 'qemu',
    },
  ],
  ['authz-simple,id=z,identity=CN=client', { 'qom-type': 'authz-simple', id: 'z', identity: 'CN=client' }],
];

for (const [text, options] of LEGAL) {
  test(`object ${text}`, () => {
    assert.deepEqual(parseObject(text), options);
    assert.deepEqual(objectOptions({ ...options }), options);
  });
}

const ILLEGAL: readonly [string, RegExp][] = [
  ['', /no object of type ''/],
  ['tls-creds-anon,id=a', /no object of type 'tls-creds-anon'/],
  ['toString,id=a', /no object of type 'toString'/],
  ['tls-creds-psk,dir=x', /'id'.*expects a letter/],
  ['tls-creds-psk,id=0a,dir=x', /'id'.*expects a letter/],
  ['tls-creds-psk,id=a', /'dir'.*it is needed/],
  ['tls-creds-psk,id=a,dir=x,endpoint=both', /'endpoint'.*one of client, server/],
  ['tls-creds-x509,id=a,dir=x,verify-peer=maybe', /'verify-peer'.*on or off/],
  ['tls-creds-psk,id=a,dir=x,priority=NORMAL', /has no property 'priority'/],
  ['tls-creds-psk,id=a,dir', /'dir' is not of the form NAME=VALUE/],
  ['tls-creds-psk,id=a,dir=x,constructor=y', /has no property 'constructor'/],
];

for (const [text, why] of ILLEGAL) test(`no object: '${text}'`, () => assert.throws(() => parseObject(text), why));
