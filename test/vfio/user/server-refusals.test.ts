/** What a server refuses: versions, commands that do not fit, commands that a state does not allow. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { DEVICE_STATES, type DeviceState, ERRNO, stateNumber } from '../../../src/vfio/index.ts';
import { type Ask, bytes, feature, logging, map, message, report, state, unmap } from './asks.ts';
import { RAM_BAR, RamDevice } from './ram-device.ts';
import { RawEnd, withRaw, withServer } from './support.ts';

const { EINVAL, ENOENT, EEXIST, EOVERFLOW, EIO } = ERRNO;
const NOTHING = Buffer.alloc(0);

/** Payloads of first messages that are answered, and those that are not. */
const GREETINGS: readonly (readonly [title: string, payload: Buffer, minor: number | 'refused'])[] = [
  ['without JSON', version(0, 1), 1],
  ['of QEMU, 0.0', version(0, 0, '{"capabilities": {"pgsizes": 4096, "migration": {"pgsize": 4096}}}\0'), 0],
  ['newer than ours', version(0, 99, '{}\0'), 2],
  ['with words of its own', version(0, 2, '{"capabilities":{"colour":"red"},"more":[]}\0'), 2],
  ['of another major', version(1, 0), 'refused'],
  ['without a NUL', version(0, 2, '{}'), 'refused'],
  ['with broken JSON', version(0, 2, '{"capabilities":\0'), 'refused'],
  ['with a text for a number', version(0, 2, '{"capabilities":{"max_msg_fds":"8"}}\0'), 'refused'],
  ['without a payload', NOTHING, 'refused'],
];

for (const [title, payload, minor] of GREETINGS) {
  test(`a version ${title}`, () =>
    withServer(new RamDevice(), async ({ socket }) => {
      const raw = await RawEnd.connect(socket);
      raw.send(message(1, payload));
      const answer = await raw.answer('VERSION');
      if (minor === 'refused') {
        assert.equal(answer, EINVAL);
        assert.equal(await raw.next(), undefined, 'closed after the refusal');
      } else {
        assert.ok(typeof answer === 'object');
        assert.deepEqual([answer.major, answer.minor], [0, minor]);
        assert.equal(answer.capabilities?.maxDataXferSize, 1024 * 1024);
      }
      raw.close();
    }));
}

test('another first command than VERSION is refused, and the connection closed; a second VERSION only refused', () =>
  withServer(new RamDevice(), async ({ socket }) => {
    const raw = await RawEnd.connect(socket);
    assert.equal(await raw.ask('DEVICE_RESET', {}), EINVAL);
    assert.equal(await raw.next(), undefined);
    await withRaw(socket, async (other) => {
      assert.equal(await other.greet(), EINVAL);
      assert.deepEqual(await other.ask('DEVICE_RESET', {}), {});
    });
  }));

const REFUSED: readonly (readonly [title: string, ask: Ask, errno: number])[] = [
  ['an overlapping mapping', map(0x1000, 0x2000), EEXIST],
  ['the same mapping again', map(0, 0x2000), EEXIST],
  ['a mapping of nothing', map(0x10_0000, 0), EINVAL],
  ['a mapping of a descriptor that is not there', map(0x10_0000, 0x1000, 7), EINVAL],
  ['a mapping beyond 2^53', map(2 ** 53 - 4096, 8192), EOVERFLOW],
  ['unmapping a part', unmap(0, 0x1000), ENOENT],
  ['unmapping what is not mapped', unmap(0x5000, 0x1000), ENOENT],
  ['unmapping all, but somewhere', unmap(0, 0x2000, 2), EINVAL],
  ['unmapping with a flag that nobody knows', unmap(0, 0x2000, 4), EINVAL],
  [
    'unmapping with a bitmap, without a log',
    ['DMA_UNMAP', { argsz: 64, flags: 1, address: 0, size: 0x2000, bitmap: { pageSize: 4096, size: 8 } }],
    EINVAL,
  ],
  ['information for less than it is', ['DEVICE_GET_INFO', { argsz: 15 }], EINVAL],
  ['a tenth region', ['DEVICE_GET_REGION_INFO', { argsz: 32, index: 9 }], EINVAL],
  ['a region for less than it takes', ['DEVICE_GET_REGION_INFO', { argsz: 31, index: 0 }], EINVAL],
  ['a sixth interrupt', ['DEVICE_GET_IRQ_INFO', { argsz: 16, index: 5 }], EINVAL],
  ['descriptors of a tenth region', ['DEVICE_GET_REGION_IO_FDS', { argsz: 16, index: 9 }], EINVAL],
  [
    'more vectors than there are',
    ['DEVICE_SET_IRQS', { data: 'eventfd', action: 'trigger', index: 2, start: 2, count: 3, bools: [] }],
    EINVAL,
  ],
  [
    'vectors of an interrupt that is not there',
    ['DEVICE_SET_IRQS', { data: 'none', action: 'trigger', index: 1, start: 0, count: 1, bools: [] }],
    EINVAL,
  ],
  ['reading behind the end', ['REGION_READ', { offset: 250, region: 7, count: 7 }], EINVAL],
  ['reading more than any message holds', ['REGION_READ', { offset: 0, region: RAM_BAR, count: 2 ** 20 + 1 }], EINVAL],
  ['reading a region that is not there', ['REGION_READ', { offset: 0, region: 8, count: 1 }], EINVAL],
  ['reading what can only be written', ['REGION_READ', { offset: 0, region: 1, count: 1 }], EINVAL],
  ['writing what can only be read', ['REGION_WRITE', { offset: 0, region: 6, data: Buffer.alloc(1) }], EINVAL],
  ['writing behind the end', ['REGION_WRITE', { offset: 2 ** 52, region: RAM_BAR, data: Buffer.alloc(1) }], EINVAL],
  [
    'many writes of which the first is too long',
    ['REGION_WRITE_MULTI', { writes: [{ offset: 0, region: RAM_BAR, count: 9, data: Buffer.alloc(8) }] }],
    EINVAL,
  ],
  ["DMA_READ, which is the server's", ['DMA_READ', { address: 0, count: 1 }], EINVAL],
  ['a feature that is not there', feature(3, true, false), EINVAL],
  ['setting what can only be got', feature(1, false, true), EINVAL],
  ['getting what can only be set', feature(7, true, false), EINVAL],
  ['a feature for less than it takes', feature(2, true, false, NOTHING, 15), EINVAL],
  ['to be broken', state(0), EINVAL],
  ['a state that is none', state(8), EINVAL],
  ['a state that the device does not have', state(5), EINVAL],
  ['half a state', feature(2, false, true, Buffer.alloc(7)), EINVAL],
  ['a log of pages of no size', logging(0, []), EINVAL],
  ['a log of odd pages', logging(5000, []), EINVAL],
  ['a log of a range between pages', logging(4096, [{ iova: 100, length: 4096 }]), EINVAL],
  ['a log beyond 2^53', logging(4096, [{ iova: 2 ** 53 - 4096, length: 8192 }]), EOVERFLOW],
  ['a report without a log', report(0, 4096, 4096), EINVAL],
  ['migration data while it runs', ['MIG_DATA_READ', { argsz: 108, size: 100 }], EINVAL],
  ['to be given migration data while it runs', ['MIG_DATA_WRITE', { data: Buffer.alloc(1) }], EINVAL],
];

test('what does not fit is refused and changes nothing', () =>
  withServer(new RamDevice({ bytes: 2 ** 21 }), ({ socket }) =>
    withRaw(
      socket,
      async (raw) => {
        assert.deepEqual(await raw.ask(...(map(0, 0x2000) as ['DMA_MAP', never])), {});
        for (const [title, [command, value], errno] of REFUSED) {
          assert.equal(await raw.ask(command, value as never), errno, title);
        }
        assert.deepEqual(await raw.ask('DMA_UNMAP', unmap(0, 0x2000)[1] as never), {
          argsz: 24,
          flags: 0,
          address: 0,
          size: 0x2000,
          bitmap: undefined,
        });
      },
      { maxDataXferSize: 20_000 },
    ),
  ));

test('commands that nobody knows are refused', () =>
  withServer(new RamDevice(), ({ socket }) =>
    withRaw(socket, async (raw) => {
      for (const number of [0, 14, 19, 0xffff]) {
        raw.send(message(number, Buffer.alloc(50)));
        const answer = await raw.next();
        assert.deepEqual([answer?.id, answer?.command, answer?.error], [0x55, number, EINVAL]);
      }
    }),
  ));

/** As the reference has it, and what we do otherwise: see rules.ts. */
const TOUCHABLE: readonly DeviceState[] = ['RUNNING', 'PRE_COPY', 'RESUMING', 'STOP', 'RUNNING_P2P', 'PRE_COPY_P2P'];
const SAVING: readonly DeviceState[] = ['PRE_COPY', 'PRE_COPY_P2P', 'STOP_COPY'];
const BY_STATE: readonly (readonly [Ask, readonly DeviceState[]])[] = [
  [['DEVICE_GET_INFO', { argsz: 16 }], DEVICE_STATES],
  [['DEVICE_GET_REGION_INFO', { argsz: 32, index: 0 }], DEVICE_STATES],
  [['DEVICE_GET_REGION_IO_FDS', { argsz: 16, index: 0 }], DEVICE_STATES],
  [['DEVICE_GET_IRQ_INFO', { argsz: 16, index: 0 }], DEVICE_STATES],
  [['DEVICE_SET_IRQS', { data: 'none', action: 'trigger', index: 0, start: 0, count: 0, bools: [] }], DEVICE_STATES],
  [map(0x7000, 0x1000), DEVICE_STATES],
  [unmap(0x7000, 0x1000), DEVICE_STATES],
  [['REGION_READ', { offset: 0, region: RAM_BAR, count: 4 }], TOUCHABLE],
  [['REGION_WRITE', { offset: 0, region: RAM_BAR, data: Buffer.alloc(4) }], TOUCHABLE],
  [['REGION_WRITE_MULTI', { writes: [{ offset: 0, region: RAM_BAR, count: 4, data: Buffer.alloc(8) }] }], TOUCHABLE],
  [feature(2, true, false), DEVICE_STATES],
  [logging(4096, []), DEVICE_STATES],
  [['MIG_DATA_READ', { argsz: 12, size: 4 }], SAVING],
  [['MIG_DATA_WRITE', { data: Buffer.alloc(4) }], ['RESUMING']],
];

test('each command in each state: served or EINVAL', async () => {
  const device = new RamDevice({ p2p: true });
  await withServer(device, ({ socket }) =>
    withRaw(socket, async (raw) => {
      for (const target of DEVICE_STATES) {
        assert.deepEqual(await raw.ask('DEVICE_RESET', {}), {}, 'a reset is served in every state');
        if (target === 'ERROR') {
          device.failing.set('RUNNING_P2P>STOP', { errno: EIO, state: 'ERROR' });
          assert.equal(await raw.ask('DEVICE_FEATURE', state(1)[1] as never), EIO);
          device.failing.clear();
        } else {
          assert.equal(typeof (await raw.ask('DEVICE_FEATURE', state(stateNumber(target))[1] as never)), 'object');
        }
        assert.equal(await device.state(), target);
        for (const [[command, value], states] of BY_STATE) {
          const answer = await raw.ask(command, value as never);
          assert.equal(
            answer === EINVAL,
            !states.includes(target),
            `${command} in ${target}: ${JSON.stringify(answer)}`,
          );
        }
      }
    }),
  );
});

test('probes: of all that is named, at once', () =>
  withServer(new RamDevice({ stopCopySize: false }), ({ socket }) =>
    withRaw(socket, async (raw) => {
      const probed = [];
      for (let index = 0; index < 16; index++) {
        for (const [get, set] of [
          [true, false],
          [false, true],
          [true, true],
          [false, false],
        ] as const) {
          const flags = { index, get, set, probe: true };
          const answer = await raw.ask('DEVICE_FEATURE', { argsz: 8, flags, data: NOTHING });
          if (answer !== EINVAL) probed.push(`${index}${get ? ' get' : ''}${set ? ' set' : ''}`);
        }
      }
      assert.deepEqual(probed, [
        '1 get',
        '1',
        '2 get',
        '2 set',
        '2 get set',
        '2',
        '6 set',
        '6',
        '7 set',
        '7',
        '8 get',
        '8',
      ]);
    }),
  ));

function version(major: number, minor: number, text = ''): Buffer {
  return Buffer.concat([
    bytes(4, (into) => into.writeUInt16LE(minor, into.writeUInt16LE(major, 0))),
    Buffer.from(text),
  ]);
}
