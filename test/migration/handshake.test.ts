/** The handshake of two vmferry ends: what does not fit is refused by both, all reasons at once, before the guest is touched. */
import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import fc from 'fast-check';
import { explain, FerryError, Reader, STARVED, Writer } from '../../src/base/index.ts';
import { CheckpointWriter, createWorkload, type WorkloadOptions } from '../../src/machine/index.ts';
import { decodeSaid } from '../../src/migration/handshake/decode-facts.ts';
import { impossible, settingFacts } from '../../src/migration/handshake/own-facts.ts';
import {
  acceptSettled,
  compareEnds,
  connector,
  dialer,
  IncomingMigration,
  MigrationError,
  OutgoingMigration,
  settle,
} from '../../src/migration/index.ts';
import { CAPABILITY_NAMES, PARAMETER_NAMES, type Settings } from '../../src/settings/index.ts';
import { listen } from '../../src/transport/index.ts';
import { decodeHandshake, encodeHandshake, HANDSHAKE_BODY_MAX, isWireError } from '../../src/wire/index.ts';
import { memoryPair } from '../support/memory-channel.ts';
import { move, testSettings } from '../support/move.ts';
import { moveOver } from '../support/move-over.ts';
import { busyVfs, vfPair } from '../support/vf-machines.ts';

const MIB = 1024 * 1024;

function settings(change: (settings: Settings) => void = () => {}): Settings {
  return testSettings((one) => {
    one.setCapabilities([{ capability: 'x-vmferry-handshake', state: true }]);
    change(one);
  });
}

const on =
  (...names: ('multifd' | 'postcopy-ram' | 'switchover-ack' | 'return-path')[]) =>
  (one: Settings) =>
    one.setCapabilities(names.map((capability) => ({ capability, state: true })));

async function machines(t: TestContext, there: Partial<WorkloadOptions> = {}) {
  const options = { ram: 4 * MIB, vcpus: 1, dirtyRate: 1e6 };
  const source = await createWorkload(options);
  const destination = await createWorkload({ ...options, ...there, incoming: true });
  t.after(async () => {
    await source.dispose();
    await destination.dispose();
  });
  await source.resume();
  return { source, destination };
}

for (const capabilities of [[], ['multifd'], ['multifd', 'postcopy-ram']] as const) {
  test(`ends that fit go on as without it: ${capabilities.join(', ') || 'one channel'}`, async (t) => {
    const both = settings(on(...capabilities));
    const { ended } = await moveOver({ ...(await machines(t)), settings: both });
    const { source, destination } = await ended;
    assert.equal(source.status, 'completed', 'error' in source ? explain(source.error) : '');
    assert.equal(destination.status, 'completed', explain(destination.error));
  });
}

test('all reasons at once, at both ends; the guest is not touched', async (t) => {
  const { source, destination } = await machines(t, { ram: 8 * MIB, machineType: 'workload-9.0' });
  const ours = settings((one) => {
    on('multifd', 'postcopy-ram')(one);
    one.setParameters({ 'multifd-channels': 4, 'multifd-compression': 'none', 'x-handshake-insist': true });
  });
  const theirs = settings((one) => {
    on('multifd')(one);
    one.setCapabilities([{ capability: 'postcopy-ram', state: false }]);
    one.setParameters({ 'multifd-channels': 3, 'multifd-compression': 'zlib', 'x-handshake-insist': true });
  });
  const { ended } = await moveOver({ source, destination, settings: ours, destinationSettings: theirs });
  const { source: left, destination: arrived } = await ended;
  for (const error of ['error' in left ? left.error : undefined, arrived.error]) {
    assert.ok(error instanceof MigrationError && error.fault.code === 'MIGRATION_ENDS_DIFFER', explain(error));
    const reasons = error.fault.reasons.join('\n');
    for (const named of [
      'workload-9.0',
      '4194304 bytes at the source, 8388608',
      'postcopy-ram',
      'multifd-channels',
      'multifd-compression',
    ])
      assert.match(reasons, new RegExp(named), reasons);
  }
  assert.equal(source.runState, 'running');
  assert.equal(left.info['setup-time'] ?? 0, 0);
});

test('devices are compared by name, wherever they are', async (t) => {
  const { source, destination } = await vfPair(t, { vfs: busyVfs(2, {}) }, { vfs: busyVfs(1, { precopy: false }) });
  const both = settings(on('return-path', 'switchover-ack'));
  const channels = memoryPair();
  const { ended } = move({ source: source.machine, destination: destination.machine, channels, settings: both });
  const { destination: arrived } = await ended;
  assert.match(explain(arrived.error), /vfio: vf1 \(0000:00:05\.0\/vfio\) is at the source only/);
});

/** A checkpoint on a file system that says it has so many bytes left. */
class CrampedCheckpoint extends CheckpointWriter {
  free = 0;

  override async freeSpace(): Promise<number> {
    return this.free;
  }
}

for (const free of [4 * MIB - 1, 64 * MIB]) {
  test(`a checkpoint with ${free} bytes of room for a machine of 4 MiB and more`, async (t) => {
    const folder = await mkdtemp(join(tmpdir(), 'vmferry-handshake-'));
    t.after(() => rm(folder, { recursive: true, force: true }));
    const { source } = await machines(t);
    const checkpoint = new CrampedCheckpoint(join(folder, 'ckpt'));
    checkpoint.free = free;
    const listener = await listen({ kind: 'tcp', host: '127.0.0.1', port: 0 });
    const incoming = new IncomingMigration({
      machine: checkpoint,
      settings: settings(),
      listener,
      takesAnyMachine: true,
    });
    const outgoing = new OutgoingMigration({
      machine: source,
      settings: settings(on('multifd')),
      connect: connector(listener.address),
      dial: dialer(listener.address),
      returnPath: () => true,
    });
    const [arrived, left] = await Promise.all([incoming.run(), outgoing.run()]);
    if (free >= 4 * MIB) {
      assert.equal(arrived.status, 'completed', explain(arrived.error));
      assert.deepEqual(await readdir(folder), ['ckpt']);
      return;
    }
    for (const error of [arrived.error, 'error' in left ? left.error : undefined])
      assert.match(explain(error), /host disk: 4194303 bytes free at the destination, the machine may need \d+/);
    assert.equal(source.runState, 'running');
    assert.equal(left.info['setup-time'] ?? 0, 0);
    assert.deepEqual(await readdir(folder), []);
  });
}

test('on at one end only: it fails at once, and is named', async (t) => {
  for (const [ours, theirs] of [
    [settings(), testSettings()],
    [testSettings(), settings()],
  ] as const) {
    for (const multifd of [false, true]) {
      if (multifd) for (const one of [ours, theirs]) on('multifd')(one);
      const pair = await machines(t);
      const { ended } = await moveOver({ ...pair, settings: ours, destinationSettings: theirs });
      const { source, destination } = await ended;
      const told = [explain('error' in source ? source.error : undefined), explain(destination.error)];
      assert.equal(source.status, 'failed');
      assert.ok(
        told.some((text) => text.includes('handshake') || text.includes('0x564d4648')),
        told.join('\n'),
      );
      assert.equal(pair.source.runState, 'running');
    }
  }
});

const frameOf = (kind: 'hello' | 'answer', body: Uint8Array) => {
  const writer = new Writer(64);
  encodeHandshake(writer, { kind, body });
  return Buffer.from(writer.bytes());
};

test('frames come back as they went, from any cut on, and anything else is a WireError', () => {
  const frame = fc.record({ kind: fc.constantFrom('hello' as const, 'answer' as const), body: fc.uint8Array() });
  fc.assert(
    fc.property(frame, fc.nat(), ({ kind, body }, cut) => {
      const bytes = frameOf(kind, body);
      assert.deepEqual(decodeHandshake(new Reader(bytes), kind), { kind, body });
      const part = bytes.subarray(0, cut % bytes.length);
      assert.throws(
        () => decodeHandshake(new Reader(part), kind),
        (thrown) => thrown === STARVED,
      );
    }),
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      try {
        decodeHandshake(new Reader(Buffer.from(bytes)), 'hello');
      } catch (thrown) {
        assert.ok(thrown === STARVED || isWireError(thrown), String(thrown));
      }
    }),
  );
  const long = frameOf('hello', Buffer.alloc(0));
  long.writeUInt32BE(HANDSHAKE_BODY_MAX + 1, 8);
  assert.throws(() => decodeHandshake(new Reader(long), 'hello'), /length: at most 1048576/);
  const newer = frameOf('hello', Buffer.alloc(0));
  newer.writeUInt16BE(2, 4);
  assert.throws(() => decodeHandshake(new Reader(newer), 'hello'), /version: expected 1, found 2/);
});

const FACTS = {
  runState: 'running',
  machineType: 'workload-11.1',
  uuid: 'a',
  capabilities: { multifd: true },
  parameters: { 'multifd-channels': 2, 'multifd-compression': 'none' },
  ram: [{ name: 'main', used: 1, max: 1, pageSize: 4096 }],
  vfio: [
    { name: 'vf0', section: 'x/vfio', precopy: true, p2p: false },
    {
      name: 'vf1',
      section: 'y/vfio',
      instance: 1,
      precopy: true,
      p2p: false,
      initialData: true,
      deadlines: false,
      stateBytes: 100,
      load: { ms: 1 },
    },
  ],
  handshake: 2,
  dialect: { 'switchover-ack-legacy': 'on' },
  given: ['multifd'],
  takes: { 'multifd-channels': 16, 'multifd-compression': ['none', 'zlib'] },
  stopMs: 1.5,
  load: { ms: 70, bytesPerMs: 1e6 },
  freeMemory: 5,
  freeDisk: 6,
  limits: { packetBytes: 1, bufferBytes: 2, blocks: 3 },
};
const factsOf = (body: Uint8Array, stream: string) => decodeSaid(body, stream).facts;
const bodyOf = (value: unknown) => Buffer.from(JSON.stringify(value));

const WRONG: readonly [member: object, path: RegExp][] = [
  [{ machineType: 'x'.repeat(256) }, /handshake \/ machineType/],
  [{ ram: [{ ...FACTS.ram[0], used: -1 }] }, /ram\[0\]\.used: value: expected a whole number, found -1/],
  [{ ram: [{ ...FACTS.ram[0], used: 2 ** 60 }] }, /ram\[0\]\.used/],
  [{ ram: {} }, /ram: value: expected a list/],
  [{ ram: Array.from({ length: 4097 }, () => FACTS.ram[0]) }, /ram: value: expected a list of at most 4096/],
  [{ capabilities: { multifd: 1 } }, /capabilities\.multifd: value: expected true or false/],
  [{ parameters: { x: [] } }, /parameters\.x/],
  [{ vfio: [null] }, /vfio\[0\]: value: expected an object/],
  [{ vfio: [{ ...FACTS.vfio[0], stateBytes: -1 }] }, /vfio\[0\]\.stateBytes/],
  [{ vfio: [{ ...FACTS.vfio[0], load: { ms: 1e12 } }] }, /vfio\[0\]\.load\.ms: value: expected 0 to 86400000 ms/],
  [{ load: { ms: 1, bytesPerMs: 0 } }, /load\.bytesPerMs: value: expected a rate/],
  [{ stopMs: '1' }, /stopMs/],
  [{ given: 'all' }, /given: value: expected a list/],
  [{ takes: { 'multifd-channels': -1 } }, /takes\.multifd-channels/],
  [{ takes: { 'multifd-compression': [1] } }, /takes\.multifd-compression\[0\]/],
  [{ limits: { packetBytes: 1 } }, /limits\.bufferBytes/],
  [{ settled: { multifd: null } }, /settled\.multifd/],
];

test('facts come back as they went, unknown members are ignored, wrong ones are named', () => {
  assert.deepEqual(factsOf(bodyOf({ ...FACTS, later: [1] }), 'x'), FACTS);
  assert.deepEqual(factsOf(bodyOf({}), 'x'), {});
  for (const [member, path] of WRONG)
    assert.throws(
      () => factsOf(bodyOf({ ...FACTS, ...member }), 'x'),
      (error) => isWireError(error) && path.test(error.message),
    );
  for (const body of [Buffer.from('{'), Buffer.from([0xff, 0xfe]), bodyOf([]), bodyOf(null), bodyOf(3)])
    assert.throws(() => factsOf(body, 'x'), isWireError);
});

/** Any JSON, but often nearly what is expected. */
const anySaid = fc
  .record({
    more: fc.dictionary(fc.constantFrom(...Object.keys(FACTS), 'settled', 'used', '__proto__'), fc.jsonValue()),
    capabilities: fc.dictionary(fc.constantFrom(...CAPABILITY_NAMES), fc.boolean()),
    parameters: fc.dictionary(
      fc.constantFrom(...PARAMETER_NAMES),
      fc.oneof(fc.integer(), fc.double(), fc.string(), fc.boolean(), fc.constantFrom('none', 'zlib', 'qpl')),
    ),
    given: fc.array(fc.constantFrom(...CAPABILITY_NAMES, ...PARAMETER_NAMES)),
    takes: fc.dictionary(
      fc.constantFrom(...PARAMETER_NAMES),
      fc.oneof(fc.nat(), fc.array(fc.constantFrom('none', 'zlib', 'qpl', 'x'))),
    ),
    settled: fc.dictionary(
      fc.constantFrom(...CAPABILITY_NAMES, ...PARAMETER_NAMES),
      fc.oneof(fc.boolean(), fc.integer({ min: -1, max: 300 }), fc.constantFrom('none', 'zlib', 'qpl', 'x')),
    ),
  })
  .map(({ more, ...said }) => ({ ...FACTS, ...said, ...more }));

test('whatever JSON comes, the outcome is a WireError, or facts to which this end settles at what it can do', () => {
  const own = settings(on('multifd'));
  const cannot = impossible({ moreConnections: true, multifd: true, postcopy: false });
  const ours = { ...FACTS, ...settingFacts(own, cannot) };
  fc.assert(
    fc.property(anySaid, (body) => {
      try {
        const { facts, settled: told = {} } = decodeSaid(bodyOf(body), 'fuzz');
        // As a destination it decides; as a source it is told.
        const decided = settle(facts, ours);
        compareEnds(facts, ours, decided);
        const { settled, refused } = acceptSettled(ours, facts, told);
        compareEnds(ours, facts, settled);
        for (const { name, value } of [...decided, ...(refused.length === 0 ? settled : [])]) {
          if (name === 'multifd-channels') assert.ok(Number(value) >= 1 && Number(value) <= 16, `${value} channels`);
          if (name === 'multifd-compression') assert.match(String(value), /^(none|zlib|zstd)$/);
          assert.ok(name !== 'postcopy-ram' || value === false);
          assert.ok(!name.startsWith('tls-') && name !== 'x-ignore-shared' && name !== 'max-bandwidth', name);
        }
      } catch (error) {
        assert.ok(isWireError(error) && error instanceof FerryError, String(error));
      }
    }),
    { numRuns: 1000 },
  );
});
