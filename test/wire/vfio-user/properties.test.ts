/** Whatever can be said with a command is understood as it was said. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { vfioUser } from '../../../src/wire/index.ts';
import { copied, messageOf, said } from './support.ts';

const u32 = fc.nat({ max: 0xffff_ffff });
const u64 = fc.maxSafeNat();
const data = (maxLength = 300) => fc.uint8Array({ maxLength }).map((bytes) => Buffer.from(bytes));
const exactly = (length: number) =>
  fc.uint8Array({ minLength: length, maxLength: length }).map((bytes) => Buffer.from(bytes));
const orNot = <T>(some: fc.Arbitrary<T>) => fc.option(some, { nil: undefined });
const some = <T>(one: fc.Arbitrary<T>) => fc.array(one, { maxLength: 5 });
const flags = fc
  .record({ index: fc.nat({ max: 0xffff }), get: fc.boolean(), set: fc.boolean(), probe: fc.boolean() })
  .filter(({ get, set, probe }) => probe || get !== set);
const capabilities = fc.record(
  {
    maxMsgFds: u32,
    maxDataXferSize: u64,
    maxDmaMaps: u32,
    pgsizes: u64,
    writeMultiple: fc.boolean(),
    twinSocket: fc.record({ supported: fc.boolean(), fdIndex: u32 }, { requiredKeys: ['supported'] }),
    migration: fc.record({ pgsize: u32, maxBitmapSize: u32 }, { requiredKeys: [] }),
  },
  { requiredKeys: [] },
);
const version = fc.record({ major: fc.nat(0xffff), minor: fc.nat(0xffff), capabilities: orNot(capabilities) });
const setIrqs = fc
  .record({ action: fc.constantFrom('mask', 'unmask', 'trigger'), index: u32, start: u32 })
  .chain((common) =>
    fc
      .oneof(
        fc.record({ data: fc.constantFrom('none', 'eventfd'), count: u32, bools: fc.constant([]) }),
        some(fc.boolean()).map((bools) => ({ data: 'bool', count: bools.length, bools })),
      )
      .map((kind) => ({ ...common, ...kind })),
  );
const capability = fc.oneof(
  fc.record({ kind: fc.constant('sparse-mmap'), areas: some(fc.record({ offset: u64, size: u64 })) }),
  fc.record({ kind: fc.constant('other'), id: fc.integer({ min: 2, max: 0xffff }), version: fc.nat(0xffff) }),
);
const regionInfo = fc
  .record({ flags: u32, index: u32, size: u64, offset: u64, capabilities: some(capability) })
  .map((info) => ({ argsz: 32, ...info }));

/** By command: what a request may be, and what a reply. */
const SAID: Readonly<Record<vfioUser.CommandName, readonly [fc.Arbitrary<unknown>, fc.Arbitrary<unknown>]>> = {
  VERSION: [version, version],
  DMA_MAP: [fc.record({ flags: u32, offset: u64, address: u64, size: u64 }), fc.constant({})],
  DMA_UNMAP: [
    fc.record({
      argsz: u32,
      flags: u32,
      address: u64,
      size: u64,
      bitmap: orNot(fc.record({ pageSize: u64, size: u64 })),
    }),
    fc.record({
      argsz: u32,
      flags: u32,
      address: u64,
      size: u64,
      bitmap: orNot(fc.record({ pageSize: u64, bits: data() })),
    }),
  ],
  DEVICE_GET_INFO: [fc.record({ argsz: u32 }), fc.record({ argsz: u32, flags: u32, regions: u32, irqs: u32 })],
  DEVICE_GET_REGION_INFO: [fc.record({ argsz: u32, index: u32 }), regionInfo],
  DEVICE_GET_REGION_IO_FDS: [
    fc.record({ argsz: u32, index: u32 }),
    fc.record({
      argsz: u32,
      index: u32,
      subRegions: some(fc.record({ offset: u64, size: u64, fdIndex: u32, type: u32, tail: exactly(16) })),
    }),
  ],
  DEVICE_GET_IRQ_INFO: [
    fc.record({ argsz: u32, index: u32 }),
    fc.record({ argsz: u32, flags: u32, index: u32, count: u32 }),
  ],
  DEVICE_SET_IRQS: [setIrqs, fc.constant({})],
  REGION_READ: [
    fc.record({ offset: u64, region: u32, count: u32 }),
    fc.record({ offset: u64, region: u32, data: data() }),
  ],
  REGION_WRITE: [
    fc.record({ offset: u64, region: u32, data: data() }),
    fc.record({ offset: u64, region: u32, count: u32 }),
  ],
  DMA_READ: [fc.record({ address: u64, count: u64 }), fc.record({ address: u64, data: data(9000) })],
  DMA_WRITE: [fc.record({ address: u64, data: data(9000) }), fc.record({ address: u64, count: u64 })],
  DEVICE_RESET: [fc.constant({}), fc.constant({})],
  REGION_WRITE_MULTI: [
    fc.record({ writes: some(fc.record({ offset: u64, region: u32, count: u32, data: exactly(8) })) }),
    fc.record({ done: u64 }),
  ],
  DEVICE_FEATURE: [fc.record({ argsz: u32, flags, data: data() }), fc.record({ argsz: u32, flags, data: data() })],
  MIG_DATA_READ: [fc.record({ argsz: u32, size: u32 }), fc.record({ data: data(9000) })],
  MIG_DATA_WRITE: [fc.record({ data: data(9000) }), fc.constant({})],
};

for (const [name, [request, reply]] of Object.entries(SAID) as [vfioUser.CommandName, (typeof SAID)['VERSION']][]) {
  test(`${name}: what is said is what is understood`, () => {
    fc.assert(
      fc.property(fc.nat(0xffff), request, reply, fc.boolean(), (id, asked, answered, noReply) => {
        const command = messageOf(vfioUser.encodeRequest(id, name, asked as never, { noReply }));
        assert.deepEqual([command.id, command.noReply], [id, noReply]);
        assert.deepEqual(said(command), copied(asked));
        assert.deepEqual(said(messageOf(vfioUser.encodeReply(id, name, answered as never))), copied(answered));
      }),
      { numRuns: 60, seed: 20261121 },
    );
  });
}
