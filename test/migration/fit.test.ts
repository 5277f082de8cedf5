/** The rules about two ends, each with facts that fit, that do not, and that are not told. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { compareEnds, type EndFacts, FIT_RULES } from '../../src/migration/index.ts';

const RAM = { name: 'pc.ram', used: 256, max: 256, pageSize: 4096 };
const TABLES = { name: 'acpi/tables', used: 32, max: 512, pageSize: 4096 };
const OLDEST = { name: 'QEMU 7.2.22', version: '7.2' };
const NEWEST = { name: 'QEMU 11.1.2', version: '11.1' };
const VF = { name: 'vf0', section: '0000:00:04.0/vfio', precopy: true, p2p: true };

const LIMITS = { packetBytes: 10, bufferBytes: 10, blocks: 10 };

const SOURCE: EndFacts = {
  program: { name: 'QEMU 10.0.2', version: '10.0' },
  runState: 'running',
  migration: 'none',
  machineType: 'pc-q35-7.2',
  uuid: 'a',
  capabilities: {
    multifd: false,
    'postcopy-ram': false,
    'switchover-ack': false,
    'validate-uuid': false,
    xbzrle: false,
  },
  parameters: { 'multifd-channels': 2, 'multifd-compression': 'none', 'tls-creds': '', 'max-bandwidth': 1 },
  ram: [RAM, TABLES],
  cpus: { count: 2, model: 'qemu64-x86_64-cpu', accelerator: 'kvm' },
  devices: { 'virtio-rng-pci': 1 },
  pci: { '00:00.0': '8086:29c0', '00:01.0': '1af4:1005' },
  vfio: [VF],
};
const DESTINATION: EndFacts = { ...SOURCE, runState: 'inmigrate' };

const on = (...names: string[]) => ({
  capabilities: { ...SOURCE.capabilities, ...Object.fromEntries(names.map((name) => [name, true])) },
});

/** Over the facts above; undefined: not told. */
type Changes = { readonly [K in keyof EndFacts]: EndFacts[K] | undefined };

interface Case {
  readonly rule: string;
  readonly source?: Changes;
  readonly destination?: Changes;
  /** Of the first finding of the rule that does not pass; `pass`: all do; `silent`: it says nothing. */
  readonly finds: 'pass' | 'silent' | ['warn' | 'fail', RegExp];
}

const CASES: readonly Case[] = [
  { rule: 'source', finds: 'pass' },
  { rule: 'source', source: { runState: 'paused', migration: 'failed' }, finds: 'pass' },
  { rule: 'source', source: { runState: 'inmigrate' }, finds: ['fail', /waits for a migration itself/] },
  { rule: 'source', source: { runState: 'postmigrate' }, finds: ['fail', /migrated already/] },
  { rule: 'source', source: { migration: 'active' }, finds: ['fail', /under way already \(active\)/] },
  { rule: 'source', source: { blocked: ['9pfs is mounted'] }, finds: ['fail', /forbids a migration: 9pfs is mounted/] },
  { rule: 'destination', finds: 'pass' },
  { rule: 'destination', destination: { runState: 'running' }, finds: ['fail', /its guest is running/] },
  { rule: 'destination', destination: { migration: 'active' }, finds: ['fail', /begun already/] },
  { rule: 'destination', destination: { migration: 'failed' }, finds: ['fail', /has failed/] },
  { rule: 'sleep', finds: 'silent' },
  { rule: 'sleep', source: { runState: 'suspended' }, finds: 'pass' },
  {
    rule: 'sleep',
    source: { runState: 'suspended' },
    destination: { program: OLDEST },
    finds: ['fail', /QEMU 7\.2\.22 cannot wake/],
  },
  { rule: 'sleep', source: { runState: 'suspended', program: OLDEST }, finds: ['warn', /QEMU 7\.2\.22 wakes it/] },
  { rule: 'version', finds: 'pass' },
  { rule: 'version', source: { program: OLDEST }, finds: 'pass' },
  {
    rule: 'version',
    destination: { program: OLDEST },
    finds: ['warn', /QEMU 10\.0\.2 to QEMU 7\.2\.22: back to an older/],
  },
  { rule: 'machine type', finds: 'pass' },
  { rule: 'machine type', destination: { machineType: 'pc-q35-8.0' }, finds: ['fail', /-machine pc-q35-7\.2/] },
  { rule: 'uuid', finds: 'pass' },
  { rule: 'uuid', source: { uuid: undefined }, destination: { uuid: undefined }, finds: 'silent' },
  { rule: 'uuid', destination: { uuid: 'b' }, finds: ['warn', /a at the source, b at/] },
  { rule: 'uuid', source: on('validate-uuid'), destination: { uuid: 'b' }, finds: ['fail', /validate-uuid/] },
  { rule: 'uuid', source: on('validate-uuid'), destination: { uuid: undefined }, finds: ['warn', /none at/] },
  { rule: 'uuid', source: { ...on('validate-uuid'), uuid: undefined }, finds: ['warn', /none at the source/] },
  { rule: 'uuid', source: on('multifd'), destination: { uuid: undefined }, finds: ['fail', /multifd/] },
  { rule: 'multifd with postcopy', source: on('multifd'), finds: 'silent' },
  {
    rule: 'multifd with postcopy',
    source: on('multifd', 'postcopy-ram'),
    finds: ['fail', /QEMU 10\.0\.2.*from 10\.1 on/],
  },
  {
    rule: 'multifd with postcopy',
    source: { ...on('multifd', 'postcopy-ram'), program: NEWEST },
    destination: { program: OLDEST },
    finds: ['fail', /QEMU 7\.2\.22/],
  },
  {
    rule: 'multifd with postcopy',
    source: { ...on('multifd', 'postcopy-ram'), program: NEWEST },
    destination: { program: NEWEST },
    finds: 'pass',
  },
  { rule: 'memory', finds: 'pass' },
  { rule: 'memory', destination: { ram: [RAM] }, finds: ['fail', /'acpi\/tables' of 32 bytes is at the source only/] },
  { rule: 'memory', source: { ram: [RAM] }, finds: ['warn', /'acpi\/tables'.* destination only/] },
  { rule: 'memory', destination: { ram: [{ ...RAM, used: 512, max: 512 }, TABLES] }, finds: ['fail', /256 .*512/] },
  { rule: 'memory', destination: { ram: [RAM, { ...TABLES, used: 64 }] }, finds: 'pass' },
  { rule: 'memory', source: { ram: [RAM, { ...TABLES, used: 513 }] }, finds: ['fail', /513 .*32/] },
  { rule: 'memory', destination: { ram: [{ ...RAM, pageSize: 2 ** 21 }, TABLES] }, finds: 'pass' },
  {
    rule: 'memory',
    source: on('postcopy-ram'),
    destination: { ram: [{ ...RAM, pageSize: 2 ** 21 }, TABLES] },
    finds: ['fail', /pages of 4096 .* 2097152/],
  },
  { rule: 'cpus', finds: 'pass' },
  { rule: 'cpus', destination: { cpus: { count: 4 } }, finds: ['fail', /2 vCPUs at the source, 4 at/] },
  { rule: 'cpus', destination: { cpus: { count: 2, model: 'max-x86_64-cpu' } }, finds: ['fail', /qemu64.* max/] },
  {
    rule: 'cpus',
    source: { cpus: { count: 2, model: 'host-x86_64-cpu' } },
    destination: { cpus: { count: 2, model: 'host-x86_64-cpu' } },
    finds: ['warn', /both hosts/],
  },
  { rule: 'accelerator', finds: 'silent' },
  { rule: 'accelerator', destination: { cpus: { count: 2, accelerator: 'tcg' } }, finds: ['warn', /kvm .* tcg/] },
  {
    rule: 'accelerator',
    source: { program: OLDEST, cpus: { count: 2, accelerator: 'tcg' } },
    destination: { cpus: { count: 2, accelerator: 'tcg' } },
    finds: ['warn', /QEMU 7\.2\.22 without KVM loses stores/],
  },
  { rule: 'host memory', finds: 'silent' },
  { rule: 'host memory', destination: { freeMemory: 288 }, finds: 'pass' },
  { rule: 'host memory', destination: { freeMemory: 287 }, finds: ['warn', /287 bytes free .* 288/] },
  { rule: 'host disk', finds: 'silent' },
  { rule: 'host disk', destination: { freeDisk: 288 }, finds: 'pass' },
  { rule: 'host disk', destination: { freeDisk: 287 }, finds: ['fail', /287 bytes free .* 288/] },
  {
    rule: 'host disk',
    source: { vfio: [{ ...VF, stateBytes: 12 }] },
    destination: { freeDisk: 299 },
    finds: ['fail', /299 bytes free .* 300/],
  },
  { rule: 'limits', finds: 'silent' },
  { rule: 'limits', source: { limits: LIMITS }, destination: { limits: LIMITS }, finds: 'pass' },
  {
    rule: 'limits',
    source: { limits: LIMITS },
    destination: { limits: { ...LIMITS, blocks: 1 } },
    finds: ['fail', /blocks of RAM: the source sends 2, the destination takes 1/],
  },
  {
    rule: 'limits',
    source: { limits: LIMITS },
    destination: { limits: { ...LIMITS, packetBytes: 1, bufferBytes: 1 } },
    finds: 'pass',
  },
  {
    rule: 'limits',
    source: { limits: LIMITS, ...on('multifd') },
    destination: { limits: { ...LIMITS, packetBytes: 9 } },
    finds: ['fail', /multifd packet: the source sends 10, the destination takes 9/],
  },
  {
    rule: 'limits',
    source: { limits: LIMITS, ...on('multifd') },
    destination: { limits: { ...LIMITS, bufferBytes: 9 } },
    finds: ['fail', /buffer of device state: the source sends 10, the destination takes 9/],
  },
  { rule: 'settled', finds: 'silent' },
  { rule: 'settled', source: on('multifd'), finds: 'silent' },
  {
    rule: 'settled',
    source: { handshake: 2, ...on('multifd') },
    destination: { handshake: 2 },
    finds: ['warn', /multifd is on at the source, off at the destination: settled at on/],
  },
  {
    rule: 'settled',
    source: { handshake: 2, ...on('multifd') },
    destination: { handshake: 2, given: ['multifd'], parameters: { 'x-handshake-insist': true } },
    finds: ['warn', /settled at off/],
  },
  {
    rule: 'settled',
    source: { handshake: 2, given: ['multifd'], ...on('multifd'), parameters: { 'x-handshake-insist': true } },
    destination: { handshake: 2, given: ['multifd'] },
    finds: ['fail', /multifd is on .*the source insists/],
  },
  {
    rule: 'capabilities',
    source: { handshake: 2, ...on('multifd') },
    destination: { handshake: 2 },
    finds: 'pass',
  },
  { rule: 'capabilities', finds: 'pass' },
  { rule: 'capabilities', source: on('xbzrle'), finds: 'pass' },
  { rule: 'capabilities', source: on('multifd'), destination: on('multifd'), finds: 'pass' },
  { rule: 'capabilities', source: on('multifd'), finds: ['fail', /multifd is on at the source only/] },
  { rule: 'capabilities', destination: on('multifd'), finds: ['fail', /multifd is on at the destination only/] },
  { rule: 'capabilities', source: on('mapped-ram'), finds: ['fail', /QEMU 10\.0\.2 does not know it/] },
  { rule: 'capabilities', source: on('postcopy-ram'), finds: ['fail', /postcopy-ram is on at the source only/] },
  { rule: 'capabilities', destination: on('postcopy-ram'), finds: 'pass' },
  { rule: 'capabilities', destination: on('return-path'), finds: 'pass' },
  { rule: 'capabilities', destination: on('postcopy-preempt'), finds: ['warn', /it will not be used/] },
  {
    rule: 'capabilities',
    destination: { ...on('postcopy-preempt'), program: OLDEST },
    finds: ['fail', /postcopy-preempt is on at the destination only/],
  },
  { rule: 'parameters', finds: 'pass' },
  { rule: 'parameters', destination: { parameters: { 'multifd-channels': 4 } }, finds: 'pass' },
  {
    rule: 'parameters',
    source: on('multifd'),
    destination: { parameters: { 'multifd-channels': 4 } },
    finds: ['fail', /multifd-channels is 2 at the source, 4 at the destination/],
  },
  { rule: 'parameters', destination: { parameters: { 'max-bandwidth': 2 } }, finds: 'pass' },
  {
    rule: 'parameters',
    source: { parameters: { 'tls-creds': 'tls0' } },
    finds: ['fail', /tls-creds is tls0 .* not set/],
  },
  {
    rule: 'parameters',
    source: { parameters: { 'tls-creds': 'client' } },
    destination: { parameters: { 'tls-creds': 'server' } },
    finds: 'pass',
  },
  { rule: 'devices', finds: 'pass' },
  { rule: 'devices', destination: { devices: {} }, finds: ['fail', /virtio-rng-pci: 1 at the source, 0 at/] },
  { rule: 'devices', source: { devices: {} }, finds: ['warn', /virtio-rng-pci: 0 at the source, 1 at/] },
  { rule: 'pci', finds: 'pass' },
  {
    rule: 'pci',
    destination: { pci: { '00:00.0': '8086:29c0' } },
    finds: ['fail', /00:01\.0 \(1af4:1005\) is at the source only/],
  },
  { rule: 'pci', source: { pci: { '00:00.0': '8086:29c0' } }, finds: ['warn', /00:01\.0 .* destination only/] },
  {
    rule: 'pci',
    destination: { pci: { ...SOURCE.pci, '00:01.0': '1af4:1000' } },
    finds: ['fail', /1af4:1005 .* 1af4:1000/],
  },
  { rule: 'vfio', finds: 'pass' },
  { rule: 'vfio', source: { vfio: [] }, destination: { vfio: [] }, finds: 'silent' },
  { rule: 'vfio', destination: { vfio: [] }, finds: ['fail', /vf0 .* source only/] },
  { rule: 'vfio', source: { vfio: [] }, finds: ['fail', /vf0 .* destination only/] },
  { rule: 'vfio', destination: { vfio: [{ ...VF, precopy: false }] }, finds: 'pass' },
  {
    rule: 'vfio',
    source: on('switchover-ack'),
    destination: { vfio: [{ ...VF, precopy: false }] },
    finds: ['warn', /vf0 .* initial data at the source only: switchover-ack does not wait for it/],
  },
  {
    rule: 'vfio',
    source: { ...on('switchover-ack'), vfio: [{ ...VF, initialData: false }] },
    destination: { vfio: [{ ...VF, initialData: true }] },
    finds: ['warn', /vf0 .* initial data at the destination only/],
  },
  {
    rule: 'vfio',
    source: { ...on('switchover-ack'), vfio: [{ ...VF, initialData: false }] },
    destination: { vfio: [{ ...VF, precopy: false, initialData: false }] },
    finds: 'pass',
  },
  { rule: 'vfio', destination: { vfio: [{ ...VF, instance: 1 }] }, finds: ['fail', /vf0 .* source only/] },
  { rule: 'downtime', finds: 'silent' },
  { rule: 'downtime', destination: { load: { ms: 100 } }, finds: 'silent' },
  {
    rule: 'downtime',
    source: { stopMs: 100, parameters: { 'downtime-limit': 300 } },
    destination: { load: { ms: 200 } },
    finds: 'pass',
  },
  {
    rule: 'downtime',
    source: { stopMs: 100, parameters: { 'downtime-limit': 300 } },
    destination: { load: { ms: 200.5 } },
    finds: ['warn', /301 ms .* downtime-limit is 300 ms/],
  },
];

for (const { rule, source = {}, destination = {}, finds } of CASES) {
  const changed = JSON.stringify([source, destination]);
  test(`${rule}: ${changed} ${finds}`, () => {
    const all = compareEnds({ ...SOURCE, ...source } as EndFacts, { ...DESTINATION, ...destination } as EndFacts);
    const found = all.filter((one) => one.rule === rule);
    if (finds === 'silent') return assert.deepEqual(found, []);
    assert.ok(found.length > 0, 'says nothing');
    const wrong = found.find(({ verdict }) => verdict !== 'pass');
    if (finds === 'pass') return assert.equal(wrong, undefined);
    assert.equal(wrong?.verdict, finds[0]);
    assert.match(wrong?.reason ?? '', finds[1]);
  });
}

test('every rule is judged above', () => {
  const judged = new Set(CASES.map(({ rule }) => rule));
  assert.deepEqual(
    FIT_RULES.map(({ name }) => name).filter((name) => !judged.has(name)),
    [],
  );
});

test('all reasons at once, and what one end does not tell is a warning, never a failure', () => {
  const findings = compareEnds(
    { ...SOURCE, ...on('multifd') },
    { ...DESTINATION, machineType: 'x', ram: [], cpus: { count: 1 } },
  );
  const failed = findings.filter(({ verdict }) => verdict === 'fail').map(({ rule }) => rule);
  assert.deepEqual([...new Set(failed)], ['machine type', 'memory', 'cpus', 'capabilities']);
  for (const [source, destination] of [
    [SOURCE, {}],
    [{}, DESTINATION],
    [{}, {}],
  ] as const) {
    assert.ok(compareEnds(source, destination).every(({ verdict }) => verdict !== 'fail'));
  }
});
