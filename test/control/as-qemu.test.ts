/** Our QMP against that of real QEMUs: the schema, and the answer to the same requests. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { type QemuPeer, QemuProcess, REQUIRED_PEERS } from '../../src/qemu/index.ts';
import { PARAMETER_NAMES, parameterDeclaration } from '../../src/settings/index.ts';
import { peerOrSkip } from '../support/peers.ts';
import { type Message, RawClient } from './raw-client.ts';
import { withServer } from './with-server.ts';

interface Info {
  readonly name: string;
  readonly 'meta-type': string;
  readonly 'arg-type'?: string;
  readonly 'ret-type'?: string;
  readonly 'element-type'?: string;
  readonly 'json-type'?: string;
  readonly members?: readonly { readonly name: string; readonly type: string; readonly default?: null }[];
  readonly values?: readonly string[];
  readonly variants?: readonly { readonly case: string; readonly type: string }[];
  readonly tag?: string;
}

type Schema = ReadonlyMap<string, Info>;

async function schemaOf(client: RawClient): Promise<Schema> {
  const infos = (await client.ask('query-qmp-schema'))?.['return'] as Info[];
  return new Map(infos.map((info) => [info.name, info]));
}

/** Where the type `ours` says something that `theirs` does not. `result`: members QEMU may add to its replies are no difference. */
function differences(
  ours: Info,
  theirs: Info,
  schemas: { ours: Schema; theirs: Schema },
  path: string,
  result: boolean,
): string[] {
  const pair = (a: string, b: string, at: string): string[] => {
    const [mine, other] = [schemas.ours.get(a), schemas.theirs.get(b)];
    assert(mine !== undefined && other !== undefined, at);
    return differences(mine, other, schemas, at, result);
  };
  if (ours['meta-type'] === 'builtin' && ours['json-type'] === 'value') return [];
  if (ours['meta-type'] !== theirs['meta-type']) return [`${path}: ${ours['meta-type']} / ${theirs['meta-type']}`];
  switch (ours['meta-type']) {
    case 'builtin':
      return ours.name === theirs.name ? [] : [`${path}: ${ours.name} / ${theirs.name}`];
    case 'array':
      return pair(ours['element-type']!, theirs['element-type']!, `${path}[]`);
    case 'enum':
      return ours.values!.filter((value) => !theirs.values!.includes(value)).map((value) => `${path}=${value}`);
    case 'object': {
      const found = ours.members!.flatMap((member) => {
        const at = `${path}.${member.name}`;
        const other = theirs.members!.find(({ name }) => name === member.name);
        if (other === undefined) return [`${at}: not in QEMU`];
        return [
          ...('default' in member === 'default' in other ? [] : [`${at}: optional on one side only`]),
          ...pair(member.type, other.type, at),
        ];
      });
      const missing = result
        ? []
        : theirs.members!.filter(({ name }) => !ours.members!.some((own) => own.name === name));
      const variants = (ours.variants ?? []).flatMap((variant) => {
        const other = theirs.variants?.find((candidate) => candidate.case === variant.case);
        return other === undefined
          ? [`${path}(${variant.case})`]
          : pair(variant.type, other.type, `${path}(${variant.case})`);
      });
      return [...found, ...variants, ...missing.map(({ name }) => `${path}.${name}: not in vmferry`)];
    }
    default:
      return [];
  }
}

/** All differences to QEMU 11.1, each with its reason. */
const KNOWN = [
  // Accepted for managers that still send it; QEMU took it up to 10.x.
  'migrate.detach: not in QEMU',
  // Options of sockets that vmferry does not have.
  ...['migrate', 'migrate-incoming'].flatMap((command) =>
    [
      '(inet).numeric',
      '(inet).to',
      '(inet).ipv4',
      '(inet).ipv6',
      '(inet).keep-alive',
      '(inet).keep-alive-count',
      '(inet).keep-alive-idle',
      '(inet).keep-alive-interval',
      '(inet).mptcp',
      '(unix).abstract',
      '(unix).tight',
    ].map((option) => `${command}.channels[].addr(socket)${option}: not in vmferry`),
  ),
  // Known by name so that they can be refused with a reason.
  'migrate-set-capabilities.capabilities[].capability=zero-blocks',
  'migrate-set-capabilities.capabilities[].capability=compress',
  'migrate-set-capabilities.capabilities[].capability=block',
  'query-migrate-capabilities[].capability=zero-blocks',
  'query-migrate-capabilities[].capability=compress',
  'query-migrate-capabilities[].capability=block',
  'migrate-set-capabilities.capabilities[].capability=x-vmferry-handshake',
  'query-migrate-capabilities[].capability=x-vmferry-handshake',
  // Methods that a build of QEMU has only with its hardware's library.
  ...['migrate-set-parameters', 'query-migrate-parameters'].flatMap((command) =>
    ['qatzip', 'qpl', 'uadk'].map((method) => `${command}.multifd-compression=${method}`),
  ),
  // Priority strings are GnuTLS's language; secrets for encrypted keys vmferry does not have.
  'object-add(tls-creds-psk).priority: not in vmferry',
  'object-add(tls-creds-x509).priority: not in vmferry',
  'object-add(tls-creds-x509).passwordid: not in vmferry',
  // vmferry's own.
  'query-migrate.ram.x-postcopy-ahead-max: not in QEMU',
  'query-migrate.ram.x-postcopy-ahead-mean: not in QEMU',
  'query-migrate.ram.x-postcopy-on-the-way-max: not in QEMU',
  'query-migrate.ram.x-postcopy-on-the-way-mean: not in QEMU',
  'query-migrate.x-handshake: not in QEMU',
  'query-migrate.x-missed-stops: not in QEMU',
  'query-migrate.x-postcopy-preempt-channels: not in QEMU',
  'query-migrate.x-switchover-ack: not in QEMU',
  'query-migrate.x-waiting-for: not in QEMU',
  ...['migrate-set-parameters', 'query-migrate-parameters'].flatMap((command) =>
    PARAMETER_NAMES.filter((name) => parameterDeclaration(name).since === 'vmferry').map(
      (name) => `${command}.${name}: not in QEMU`,
    ),
  ),
  // QEMU 11.1 has no such command any more; managers of older ones ask for it.
  'query-migrationthreads: not in QEMU',
];

/** Where the commands and events that `wanted` names differ from those of the QEMU. */
async function compare(peer: QemuPeer, wanted: (name: string) => boolean): Promise<string[]> {
  const found: string[] = [];
  const qemu = await QemuProcess.start({ peer, args: MACHINE });
  try {
    await withServer(async ({ path }) => {
      const ours = await schemaOf(await RawClient.negotiated(path));
      const theirs = await schemaOf(await RawClient.negotiated(qemu.qmpPath));
      for (const info of ours.values()) {
        if (!['command', 'event'].includes(info['meta-type']) || !wanted(info.name)) continue;
        const other = theirs.get(info.name);
        if (other === undefined) {
          found.push(`${info.name}: not in QEMU`);
          continue;
        }
        for (const which of ['arg-type', 'ret-type'] as const) {
          const [a, b] = [info[which], other[which]];
          if (a === undefined && b === undefined) continue;
          assert(a !== undefined && b !== undefined, info.name);
          const result = which === 'ret-type' || info['meta-type'] === 'event';
          found.push(...differences(ours.get(a)!, theirs.get(b)!, { ours, theirs }, info.name, result));
        }
      }
    });
  } finally {
    await qemu.stop();
  }
  return found;
}

const MACHINE = ['-nodefaults', '-machine', 'none', '-accel', 'tcg'];

{
  const { peer, skip } = await peerOrSkip('11.1');
  test('query-qmp-schema: every command, event and type is as in QEMU 11.1, but for the known differences', {
    skip,
  }, async () => {
    assert(peer !== undefined);
    assert.deepEqual((await compare(peer, () => true)).sort(), KNOWN.sort());
  });
}

{
  const { peer, skip } = await peerOrSkip('10.0');
  test('query-migrationthreads is as in QEMU 10.0, which still has it', { skip }, async () => {
    assert(peer !== undefined);
    assert.deepEqual(await compare(peer, (name) => name === 'query-migrationthreads'), []);
  });
}

/** Requests that QEMU and vmferry must treat alike: the same reply, or the same class of error and the same names in it. */
const REQUESTS: readonly unknown[] = [
  { execute: 'query-name', id: { a: 1 } },
  { execute: 'nope', id: 3 },
  { exec: 'query-name' },
  { execute: 3 },
  { execute: 'query-name', arguments: [] },
  { execute: 'query-name', arguments: { x: 1 } },
  { execute: 'query-name', foo: 1 },
  [],
  3,
  { execute: 'qmp_capabilities' },
  { execute: 'migrate', arguments: { uri: 5 } },
  { execute: 'migrate-continue', arguments: { state: 'foo' } },
  { execute: 'migrate-set-capabilities' },
  { execute: 'migrate-set-capabilities', arguments: { capabilities: [{ capability: 'foo', state: true }] } },
  { execute: 'migrate-set-capabilities', arguments: { capabilities: [{ capability: 'xbzrle' }] } },
  { execute: 'migrate-set-capabilities', arguments: { capabilities: [{ capability: 'xbzrle', state: 1 }] } },
  { execute: 'migrate-set-capabilities', arguments: { capabilities: {} } },
  { execute: 'migrate-set-capabilities', arguments: { capabilities: [3] } },
  { execute: 'migrate-set-capabilities', arguments: { capabilities: [{ capability: 'events', state: true }] } },
  { execute: 'migrate-set-parameters', arguments: { foo: 1 } },
  { execute: 'migrate-set-parameters', arguments: { 'cpu-throttle-tailslow': 1 } },
  { execute: 'migrate-set-parameters', arguments: { 'multifd-compression': 'lzma' } },
  { execute: 'migrate_cancel' },
  { execute: 'query-migrate' },
];

interface ErrorReply {
  readonly class: string;
  readonly desc: string;
}

function assertAlike(ours: Message | undefined, theirs: Message | undefined, request: string): void {
  const [error, other] = [ours?.['error'], theirs?.['error']] as [ErrorReply | undefined, ErrorReply | undefined];
  if (error === undefined || other === undefined) {
    assert.deepEqual(ours, theirs, request);
    return;
  }
  assert.equal(error.class, other.class, request);
  for (const [name] of other.desc.matchAll(/'.*?'/g))
    assert.ok(error.desc.includes(name), `${error.desc} / ${other.desc}`);
  assert.deepEqual({ ...ours, error: 0 }, { ...theirs, error: 0 }, request);
}

for (const version of REQUIRED_PEERS) {
  const { peer, skip } = await peerOrSkip(version);
  test(`the same requests get the same answers from vmferry and QEMU ${version}`, { skip }, async () => {
    assert(peer !== undefined);
    const qemu = await QemuProcess.start({ peer, args: [...MACHINE, '-name', 'fake'] });
    try {
      await withServer(async ({ path }) => {
        const ours = await RawClient.negotiated(path);
        const theirs = await RawClient.negotiated(qemu.qmpPath);
        for (const request of REQUESTS) {
          ours.write(`${JSON.stringify(request)}\n`);
          theirs.write(`${JSON.stringify(request)}\n`);
          assertAlike(await ours.next(), await theirs.next(), JSON.stringify(request));
        }
      });
    } finally {
      await qemu.stop();
    }
  });
}
