/** A client of ours and servers of ours: what the device does, reaches the other side; its state moves between two servers. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { DEVICE_STATES, hasState, pathBetween, type UserDevice } from '../../../src/vfio/index.ts';
import { DOORBELL_BAR, PAGE, RAM_BAR, RamDevice } from './ram-device.ts';
import { readAll, TestMemory, withDevice, withServer } from './support.ts';

test('what a device can do, its regions and its interrupts', async () => {
  const device = new RamDevice({ p2p: true });
  await withServer(device, ({ socket }) =>
    withDevice(socket, async (client) => {
      const { states, stopCopySize, precopyInfo, deadlines } = client.features;
      assert.deepEqual(
        [states, stopCopySize, precopyInfo, deadlines],
        [{ p2p: true, preCopy: true }, true, false, false],
      );
      assert.equal(client.migratable, true);
      const { regions, interrupts } = await client.describe();
      assert.deepEqual(
        regions,
        device.regions.toSorted((a, b) => a.index - b.index),
      );
      assert.deepEqual(interrupts, device.interrupts);
      assert.equal(await client.state(), 'RUNNING');
      assert.equal(await client.estimate('STOP'), undefined);
      await assert.rejects(client.precopyInfo(), { code: 'VFIO_OPERATION' });
    }),
  );
});

test('regions are read and written, in as many messages as it takes', async () => {
  const device = new RamDevice({ bytes: 3 * 1024 * 1024 });
  await withServer(device, ({ socket }) =>
    withDevice(socket, async (client) => {
      const fn = await client.describe();
      const bytes = pattern(2_500_000);
      await fn.writeRegion(RAM_BAR, 12_345, bytes);
      assert.ok(device.memory.subarray(12_345, 12_345 + bytes.length).equals(bytes));
      const back = Buffer.alloc(bytes.length);
      await fn.readRegion(RAM_BAR, 12_345, back);
      assert.ok(back.equals(bytes));
      await assert.rejects(fn.readRegion(RAM_BAR, device.memory.length - 1, Buffer.alloc(2)), {
        code: 'VFIO_OPERATION',
        fault: { code: 'VFIO_OPERATION', device: 'device', operation: 'read region', errno: 22 },
      });
      await fn.readRegion(7, 0, back.subarray(0, 4));
      assert.equal(back.readUInt32LE(0), 0x5678_1234);
    }),
  );
});

test('the device reaches guest memory while a command of ours is open, and every page it writes is told', async () => {
  const memory = new TestMemory(0x1_0000_0000, 4 * 1024 * 1024);
  pattern(1_500_000).copy(memory.bytes);
  await withServer(new RamDevice(), ({ socket }) =>
    withDevice(socket, async (client) => {
      await client.attachMemory(memory);
      const [range] = memory.ranges;
      assert.equal(await client.startDmaLogging(PAGE, memory.ranges), PAGE);
      await assert.rejects(client.startDmaLogging(PAGE, memory.ranges), { code: 'VFIO_OPERATION' });
      await ring(client, 0x1_0000_0000, 0x1_0020_0010, 1_500_000);
      assert.ok(memory.bytes.subarray(0x20_0010, 0x20_0010 + 1_500_000).equals(pattern(1_500_000)));

      const bits = new Uint32Array(32);
      await client.reportDmaLogging(range!, PAGE, bits);
      const expected = new Uint32Array(32);
      for (let page = 0x200; page * PAGE < 0x20_0010 + 1_500_000; page++) expected[page >>> 5]! |= 1 << (page & 31);
      assert.deepEqual(bits, expected);
      await client.reportDmaLogging(range!, PAGE, bits.fill(0));
      assert.ok(
        bits.every((word) => word === 0),
        'a report clears',
      );

      await assert.rejects(ring(client, 0x1_0000_0000, 0x2_0000_0000, 8), {
        fault: { code: 'VFIO_OPERATION', device: 'device', operation: 'write region', errno: 2 },
      });
      await client.detachMemory();
      await assert.rejects(ring(client, 0x1_0000_0000, 0x1_0020_0000, 8), { code: 'VFIO_OPERATION' });
    }),
  );
});

test('a device reaches guest memory only while it may', async () => {
  const device = new RamDevice();
  device.config.writeUInt16LE(0, 4);
  await withServer(device, ({ socket }) =>
    withDevice(socket, async (client) => {
      const memory = new TestMemory(0, 8192);
      await client.attachMemory(memory);
      assert.equal(device.space, undefined);
      await client.enable();
      memory.bytes.write('here');
      await ring(client, 0, 4096, 4);
      assert.equal(memory.bytes.toString('latin1', 4096, 4100), 'here');
      const fn = await client.describe();
      await fn.writeRegion(7, 4, Buffer.from([2, 0]));
      await assert.rejects(ring(client, 0, 4096, 4), { code: 'VFIO_OPERATION' });
      assert.deepEqual(device.journal, ['memory', 'memory gone']);
    }),
  );
});

test('memory is attached anew: only what has changed is said, and what is there now is reached', async () => {
  const device = new RamDevice();
  await withServer(device, ({ socket }) =>
    withDevice(socket, async (client) => {
      const [first, second, elsewhere] = [
        new TestMemory(0, 8192),
        new TestMemory(0, 8192),
        new TestMemory(0x10_0000, 8192),
      ];
      for (const memory of [first, second, elsewhere]) {
        await client.attachMemory(memory);
        memory.bytes.write('here');
        const { iova } = memory.ranges[0]!;
        await ring(client, iova, iova + 4096, 4);
        assert.equal(memory.bytes.toString('latin1', 4096, 4100), 'here');
      }
      assert.equal(first.bytes.toString('latin1', 4096, 4100), 'here');
      await assert.rejects(ring(client, 0, 4096, 4), { code: 'VFIO_OPERATION' }, 'the old addresses are gone');
      await client.detachMemory();
      await client.attachMemory(first);
    }),
  );
});

test('what the guest has set up of its configuration space moves too, also while the state is read out', async () => {
  const [source, destination] = [new RamDevice(), new RamDevice()];
  await withServer(source, ({ socket: from }) =>
    withServer(destination, ({ socket: to }) =>
      withDevice(from, (a) =>
        withDevice(to, async (b) => {
          await assert.rejects(a.saveConfig(), { code: 'VFIO_OPERATION' });
          source.config.writeUInt32LE(0xe000_0000, 0x18);
          source.config[0x3c] = 11;
          await a.enable();
          await b.learnConfig();
          assert.equal(source.config.readUInt16LE(4), 6, 'memory and bus mastering');
          await a.setState('STOP_COPY');
          const config = await a.saveConfig();
          assert.equal(config.length, 276);
          await b.setState('RESUMING');
          await b.loadConfig(config);
          assert.deepEqual([destination.config.readUInt32LE(0x18), destination.config[0x3c]], [0xe000_0000, 11]);
          await assert.rejects(b.loadConfig(config.subarray(1)), { code: 'VFIO_OPERATION' });
          config.writeUInt16LE(0x4321, 4);
          await assert.rejects(b.loadConfig(config), /configuration of another device: byte 0/);
        }),
      ),
    ),
  );
});

test('between vmferry processes: what is left of pre-copy, what a move takes, and moves with a deadline', async () => {
  const device = new RamDevice({ modern: true });
  await withServer(device, ({ socket }) =>
    withDevice(socket, async (client) => {
      assert.deepEqual([client.features.precopyInfo, client.features.deadlines], [true, true]);
      await assert.rejects(client.precopyInfo(), { code: 'VFIO_OPERATION' });
      assert.equal(await client.estimate('STOP_COPY'), 20);
      const [arc, ...more] = await client.setState('PRE_COPY', { deadlineMs: 500 });
      assert.deepEqual([arc?.from, arc?.to, more.length], ['RUNNING', 'PRE_COPY', 0]);
      assert.deepEqual(await client.precopyInfo(), { initialBytes: device.memory.length, dirtyBytes: 7, reinit: true });
      const refused = { code: 'VFIO_DEADLINE_REFUSED', device: 'device', errno: 62, neededMs: undefined };
      await assert.rejects(client.setState('STOP', { deadlineMs: 15 }), { fault: { ...refused, deadlineMs: 15 } });
      await assert.rejects(client.setState('STOP', { deadlineMs: 1 }), { fault: { ...refused, deadlineMs: 1 } });
      device.missing = true;
      await assert.rejects(client.setState('STOP', { deadlineMs: 500 }), {
        fault: { code: 'VFIO_DEADLINE_MISSED', device: 'device', errno: 110, deadlineMs: 500, state: 'PRE_COPY' },
      });
      device.missing = false;
      device.failing.set('RUNNING>STOP', { errno: 5 });
      await assert.rejects(client.setState('STOP', { deadlineMs: 500 }), {
        fault: { code: 'VFIO_ARC_FAILED', device: 'device', errno: 5, from: 'PRE_COPY', to: 'STOP', state: 'RUNNING' },
      });
      assert.deepEqual(await client.setState('RUNNING', { deadlineMs: 0 }), [], 'it is there');
      await assert.rejects(client.setState('ERROR', { deadlineMs: 500 }), { code: 'VFIO_NO_PATH' });
    }),
  );
});

test('every state is reached from every other, along the arcs of the table; the rest is refused and changes nothing', async () => {
  for (const options of [{}, { preCopy: false }, { p2p: true }, { preCopy: false, p2p: true }]) {
    const device = new RamDevice(options);
    const states = DEVICE_STATES.filter((state) => state !== 'ERROR' && hasState(device.features.states, state));
    await withServer(device, ({ socket }) =>
      withDevice(socket, async (client) => {
        for (const from of states) {
          for (const to of DEVICE_STATES) {
            await client.reset();
            await client.setState(from);
            // Leaving RESUMING takes a whole stream.
            if (from === 'RESUMING') await client.write(device.endRecord());
            const path = pathBetween(device.features.states, from, to);
            if (path === undefined) {
              await assert.rejects(client.setState(to), { code: 'VFIO_NO_PATH' }, `${from} -> ${to}`);
              assert.equal(await device.state(), from);
              continue;
            }
            const taken = await client.setState(to);
            assert.deepEqual(
              taken.map((arc) => [arc.from, arc.to]),
              path.map((arc) => [arc.from, arc.to]),
            );
            assert.equal(await device.state(), to, `${from} -> ${to}`);
          }
        }
      }),
    );
  }
});

test('an arc that fails says where the device is; reset recovers', async () => {
  const device = new RamDevice();
  await withServer(device, ({ socket, events }) =>
    withDevice(socket, async (client) => {
      device.failing.set('STOP>STOP_COPY', { errno: 5 });
      const fault = { code: 'VFIO_ARC_FAILED', device: 'device', from: 'STOP', to: 'STOP_COPY', errno: 5 };
      await assert.rejects(client.setState('STOP_COPY'), { fault: { ...fault, state: 'STOP' } });
      assert.equal(await client.state(), 'STOP');
      device.failing.set('STOP>STOP_COPY', { errno: 5, state: 'ERROR' });
      await assert.rejects(client.setState('STOP_COPY'), { fault: { ...fault, state: 'ERROR' } });
      await assert.rejects(client.setState('RUNNING'), { code: 'VFIO_NO_PATH' });
      await client.reset();
      assert.equal(await client.state(), 'RUNNING');
      const seen = events.flatMap((event) =>
        event.kind === 'state' ? [event.to] : event.kind === 'reset' ? ['reset'] : [],
      );
      assert.deepEqual(seen, ['STOP', 'ERROR', 'reset', 'RUNNING']);
    }),
  );
});

for (const { title, preCopy, step, readMax } of [
  { title: 'stop-copy', preCopy: false, step: 1024 * 1024, readMax: Number.POSITIVE_INFINITY },
  { title: 'stop-copy, byte by byte', preCopy: false, step: 7, readMax: 3 },
  { title: 'pre-copy', preCopy: true, step: 1024 * 1024, readMax: Number.POSITIVE_INFINITY },
  { title: 'pre-copy in odd pieces', preCopy: true, step: 5000, readMax: 333 },
]) {
  test(`a device moves between two servers: ${title}`, async () => {
    const bytes = step < 100 ? 2 * PAGE : 700 * PAGE;
    const [source, destination] = [new RamDevice({ bytes, preCopy }), new RamDevice({ bytes, preCopy })];
    source.readMax = readMax;
    pattern(bytes).copy(source.memory);
    await withServer(source, ({ socket: from }) =>
      withServer(destination, ({ socket: to }) =>
        withDevice(from, (a) =>
          withDevice(to, async (b) => {
            await b.setState('RESUMING');
            if (preCopy) {
              await a.setState('PRE_COPY');
              for (let round = 0; round < 3; round++) {
                await b.write(await readAll(a, step));
                source.memory.write(`round ${round}`, round * PAGE + 9);
                source.touch(round * PAGE, 20);
              }
            }
            await a.setState('STOP_COPY');
            const size = await a.stopCopySize();
            const rest = await readAll(a, step);
            assert.equal(rest.length, size);
            if (preCopy) assert.ok(rest.length < 2 * PAGE, 'only what was dirtied last');
            await b.write(rest);
            assert.equal(await a.read(Buffer.alloc(10)), 'end', 'the end is told again');
            await b.setState('RUNNING');
            await a.setState('STOP');
            assert.ok(destination.memory.equals(source.memory));
          }),
        ),
      ),
    );
  });
}

test('a stream that lacks its end is refused where loading ends, and the device can be reset', async () => {
  const [source, destination] = [new RamDevice(), new RamDevice()];
  await withServer(source, ({ socket: from }) =>
    withServer(destination, ({ socket: to }) =>
      withDevice(from, (a) =>
        withDevice(to, async (b) => {
          await a.setState('STOP_COPY');
          const state = await readAll(a);
          await b.setState('RESUMING');
          await b.write(state.subarray(0, -8));
          const fault = { code: 'VFIO_ARC_FAILED', device: 'device', errno: 22, state: 'RESUMING' };
          await assert.rejects(b.setState('RUNNING'), { fault: { ...fault, from: 'RESUMING', to: 'STOP' } });
          await b.reset();
          assert.equal(await b.state(), 'RUNNING');
        }),
      ),
    ),
  );
});

test('calls that overlap are served in the order in which they were made', async () => {
  const device = new RamDevice();
  await withServer(device, ({ socket }) =>
    withDevice(socket, async (client) => {
      const into = Buffer.alloc(100);
      const all = [
        client.setState('PRE_COPY'),
        client.read(into),
        client.setState('STOP'),
        client.state(),
        client.read(into),
      ];
      const [, count, , state, last] = await Promise.allSettled(all);
      assert.deepEqual(
        [count, state],
        [
          { status: 'fulfilled', value: 100 },
          { status: 'fulfilled', value: 'STOP' },
        ],
      );
      assert.equal(last?.status, 'rejected');
      assert.deepEqual(device.journal.slice(1), ['RUNNING>PRE_COPY', 'PRE_COPY>RUNNING', 'RUNNING>STOP']);
    }),
  );
});

test('closing ends what is under way', async () => {
  const device = new RamDevice();
  let entered: () => void = () => {};
  const within = new Promise<void>((resolve) => {
    entered = resolve;
  });
  let release: () => void = () => {};
  device.beforeArc = () => {
    entered();
    return new Promise((resolve) => {
      release = resolve;
    });
  };
  await withServer(device, ({ socket }) =>
    withDevice(socket, async (client) => {
      const moving = client.setState('STOP');
      const later = client.state();
      await within;
      await client.close();
      await assert.rejects(moving, { code: 'VFIO_GONE' });
      await assert.rejects(later, { code: 'VFIO_GONE' });
      await assert.rejects(client.read(Buffer.alloc(1)), { code: 'VFIO_GONE' });
      release();
    }),
  );
});

/** Rings the device's bell: copy `count` bytes of guest memory. */
async function ring(client: UserDevice, source: number, target: number, count: number): Promise<void> {
  const fn = await client.describe();
  const registers = Buffer.alloc(24);
  registers.writeBigUInt64LE(BigInt(source), 0);
  registers.writeBigUInt64LE(BigInt(target), 8);
  registers.writeBigUInt64LE(BigInt(count), 16);
  await fn.writeRegion(DOORBELL_BAR, 0, registers.subarray(0, 16));
  await fn.writeRegion(DOORBELL_BAR, 16, registers.subarray(16));
}

function pattern(length: number): Buffer {
  return Buffer.from(Uint8Array.from({ length }, (_, i) => (i * 31 + (i >>> 8)) & 0xff));
}
