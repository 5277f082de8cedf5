import assert from 'node:assert/strict';
import test from 'node:test';
import { type Address, formatAddress, parseAddress } from '../../src/transport/index.ts';
import { hasCode } from '../contract/channel.ts';

const sh = (command: string): Address => ({ kind: 'exec', command: ['/bin/sh', '-c', command] });

const LEGAL: readonly [string, Address, string?][] = [
  ['tcp:127.0.0.1:4444', { kind: 'tcp', host: '127.0.0.1', port: 4444 }],
  ['tcp:[::1]:4444', { kind: 'tcp', host: '::1', port: 4444 }],
  ['tcp::0', { kind: 'tcp', host: '', port: 0 }],
  ['tcp:vm-host.example:65535', { kind: 'tcp', host: 'vm-host.example', port: 65535 }],
  ['unix:/run/vm.sock', { kind: 'unix', path: '/run/vm.sock' }],
  ['unix:with:colon,and=comma', { kind: 'unix', path: 'with:colon,and=comma' }],
  ['fd:5', { kind: 'fd', fd: 5 }],
  ['exec:gzip -c > "a b.gz"', sh('gzip -c > "a b.gz"')],
  ['exec:cat file:1', sh('cat file:1')],
  ['file:/vm/state', { kind: 'file', path: '/vm/state', offset: 0 }],
  ['file:a,b', { kind: 'file', path: 'a,b', offset: 0 }],
  ['file:a,offset=0x1000', { kind: 'file', path: 'a', offset: 4096 }],
  ['file:a,offset=4096', { kind: 'file', path: 'a', offset: 4096 }, 'file:a,offset=0x1000'],
  ['file:a,offset=2M', { kind: 'file', path: 'a', offset: 2 * 1024 ** 2 }, 'file:a,offset=0x200000'],
  ['file:a,offset=1.5k', { kind: 'file', path: 'a', offset: 1536 }, 'file:a,offset=0x600'],
  ['file:a,offset=0', { kind: 'file', path: 'a', offset: 0 }, 'file:a'],
];

for (const [text, address, canonical = text] of LEGAL) {
  test(`address ${text}`, () => {
    assert.deepEqual(parseAddress(text), address);
    assert.equal(formatAddress(address), canonical);
    assert.deepEqual(parseAddress(formatAddress(address)), address);
  });
}

const ILLEGAL: readonly [string, RegExp][] = [
  ['', /must begin with tcp:/],
  ['/run/vm.sock', /must begin with tcp:/],
  ['TCP:a:1', /must begin with tcp:/],
  ['vsock:3:4444', /vsock: is not supported/],
  ['rdma:host:1', /rdma: is not supported/],
  ['tcp:host', /HOST:PORT/],
  ['tcp:::1:4444', /HOST:PORT/],
  ['tcp:host:65536', /0 to 65535/],
  ['tcp:host:http', /0 to 65535/],
  ['tcp:host:', /0 to 65535/],
  ['tcp:host:1,ipv4=on', /options after the port \(',ipv4=on'\)/],
  ['unix:', /wants a path/],
  [`unix:/${'x'.repeat(107)}`, /107 bytes/],
  ['fd:migration', /number of an open descriptor/],
  ['fd:', /number of an open descriptor/],
  ['fd:-1', /number of an open descriptor/],
  ['exec: ', /wants a command/],
  ['file:', /wants a path/],
  ['file:,offset=1', /wants a path/],
  ['file:a,offset=', /offset must be a size/],
  ['file:a,offset=-1', /offset must be a size/],
  ['file:a,offset=0x10K', /offset must be a size/],
  ['file:a,offset=1.5', /offset must be a size/],
  ['file:a,offset=99E', /offset must be a size/],
];

for (const [text, why] of ILLEGAL) {
  test(`no address: '${text.slice(0, 30)}'`, () => {
    assert.throws(() => parseAddress(text), hasCode('TRANSPORT_ADDRESS'));
    assert.throws(() => parseAddress(text), why);
  });
}
