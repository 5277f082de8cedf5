/** Messages in pieces, in heaps, too large, without a reply; and what goes in them: regions and migration data. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { ERRNO } from '../../../src/vfio/index.ts';
import { vfioUser } from '../../../src/wire/index.ts';
import { gone, header, lastGone, state } from './asks.ts';
import { PAGE, RAM_BAR, RamDevice } from './ram-device.ts';
import { RawEnd, withRaw, withServer } from './support.ts';

const { EINVAL } = ERRNO;
const NOTHING = Buffer.alloc(0);

test('messages in single bytes, and many in one write: replies come in order', async () => {
  const device = new RamDevice();
  await withServer(device, ({ socket }) =>
    withRaw(socket, async (raw) => {
      const write = (id: number) =>
        vfioUser.encodeRequest(id, 'REGION_WRITE', { offset: id, region: RAM_BAR, data: Buffer.from([id & 0xff]) });
      for (const byte of write(1)) {
        raw.send(Buffer.from([byte]));
        await new Promise((resolve) => setImmediate(resolve));
      }
      assert.equal((await raw.next())?.id, 1);
      const many = Array.from({ length: 3000 }, (_, i) => write(i + 2));
      raw.send(Buffer.concat(many));
      for (let i = 0; i < many.length; i++) assert.equal((await raw.next())?.id, i + 2);
      assert.deepEqual(
        [...device.memory.subarray(1, 3002)],
        Array.from({ length: 3001 }, (_, i) => (i + 1) & 0xff),
      );
    }),
  );
});

test('the largest message is taken, whole or in pieces', async () => {
  const device = new RamDevice({ bytes: 1024 * 1024 });
  await withServer(device, ({ socket }) =>
    withRaw(socket, async (raw) => {
      const data = Buffer.alloc(1024 * 1024, 0x5a);
      assert.deepEqual(await raw.ask('REGION_WRITE', { offset: 0, region: RAM_BAR, data }), {
        offset: 0,
        region: RAM_BAR,
        count: data.length,
      });
      assert.ok(device.memory.equals(data));
      const answer = await raw.ask('REGION_READ', { offset: 0, region: RAM_BAR, count: data.length });
      assert.ok(typeof answer === 'object' && data.equals(answer.data));
    }),
  );
});

test('a message that breaks the stream ends the connection, and the next client is served', async () => {
  const broken: readonly (readonly [string, Buffer, string])[] = [
    ['too large', header(9, 0xffff_ffff), 'WIRE_LIMIT'],
    ['smaller than its header', header(9, 15), 'WIRE_UNEXPECTED_VALUE'],
    ['of no type', header(9, 32, 7), 'WIRE_UNEXPECTED_VALUE'],
    ['a reply that nobody waits for', header(11, 16, 1), 'VFIOUSER_WRONG_REPLY'],
  ];
  const device = new RamDevice();
  await withServer(device, async ({ socket, events }) => {
    for (const [title, bytes, code] of broken) {
      await withRaw(socket, async (raw) => {
        raw.send(bytes);
        assert.equal(await raw.next(), undefined, title);
      });
      await gone(events);
      assert.equal((lastGone(events) as { code?: string }).code, code, title);
    }
    const raw = await RawEnd.connect(socket);
    raw.send(header(1, 100).subarray(0, 9));
    raw.socket.end();
    assert.equal(await raw.next(), undefined);
    await withRaw(socket, async (next) => assert.deepEqual(await next.ask('DEVICE_RESET', {}), {}));
    assert.ok(
      events.some((event) => event.kind === 'gone' && (event.reason as { code?: string }).code === 'WIRE_TRUNCATED'),
    );
  });
});

test('no reply wanted: silence after success and failure, and it is done before the connection ends', async () => {
  const device = new RamDevice();
  await withServer(device, async ({ socket }) => {
    await withRaw(socket, async (raw) => {
      const silent = { noReply: true };
      const write = (offset: number) => ({ offset, region: RAM_BAR, data: Buffer.from('done') });
      raw.send(vfioUser.encodeRequest(1, 'REGION_WRITE', write(0), silent));
      raw.send(vfioUser.encodeRequest(2, 'REGION_WRITE', write(2 ** 40), silent));
      raw.send(vfioUser.encodeRequest(3, 'DEVICE_GET_INFO', { argsz: 16 }));
      assert.equal((await raw.next())?.id, 3);
      assert.equal(device.memory.toString('latin1', 0, 4), 'done');
      raw.socket.end(vfioUser.encodeRequest(4, 'REGION_WRITE', write(100), silent));
      assert.equal(await raw.next(), undefined);
    });
    await withRaw(socket, async () => assert.equal(device.memory.toString('latin1', 100, 104), 'done'));
  });
});

test('accesses of no bytes, and many writes in one message', async () => {
  const device = new RamDevice();
  await withServer(device, ({ socket }) =>
    withRaw(socket, async (raw) => {
      assert.deepEqual(await raw.ask('REGION_READ', { offset: 8, region: 7, count: 0 }), {
        offset: 8,
        region: 7,
        data: NOTHING,
      });
      assert.deepEqual(await raw.ask('REGION_WRITE', { offset: 8, region: 7, data: NOTHING }), {
        offset: 8,
        region: 7,
        count: 0,
      });
      const one = (offset: number, count: number, data: string) => ({
        offset,
        region: RAM_BAR,
        count,
        data: Buffer.from(data),
      });
      const writes = [
        one(0, 8, 'abcdefgh'),
        one(100, 2, 'xy------'),
        one(2 ** 30, 4, '........'),
        one(200, 4, 'zzzz----'),
      ];
      assert.deepEqual(await raw.ask('REGION_WRITE_MULTI', { writes }), { done: 2 });
      assert.equal(device.memory.toString('latin1', 0, 8), 'abcdefgh');
      assert.deepEqual([...device.memory.subarray(100, 104)], [...Buffer.from('xy\0\0')]);
      assert.equal(device.memory[200], 0);
    }),
  );
});

test('migration data: as much as was asked for, nothing at the end, surplus bytes of a request are not looked at', async () => {
  const device = new RamDevice({ bytes: 2 * PAGE, preCopy: false });
  device.readMax = 100;
  await withServer(device, ({ socket }) =>
    withRaw(
      socket,
      async (raw) => {
        const read = async (size: number, argsz = size + 8) => {
          const answer = await raw.ask('MIG_DATA_READ', { argsz, size });
          return typeof answer === 'number' ? answer : answer.data.length;
        };
        await raw.ask('DEVICE_FEATURE', state(3)[1] as never);
        assert.equal(await read(0), 0);
        assert.equal(await read(1000, 1007), EINVAL, 'no room for the answer');
        assert.equal(await read(8001), EINVAL, 'more than the client said it takes');
        assert.equal(await read(8000), 8000);
        assert.equal(await read(8000), 2 * (PAGE + 8) + 8 - 8000, 'the rest');
        assert.deepEqual([await read(8000), await read(10)], [0, 0]);
        await raw.ask('DEVICE_FEATURE', state(4)[1] as never);
        const padded = Buffer.concat([
          vfioUser.encodeRequest(9, 'MIG_DATA_WRITE', { data: device.endRecord() }),
          Buffer.alloc(9),
        ]);
        padded.writeUInt32LE(padded.length, 4);
        raw.send(padded);
        assert.deepEqual(await raw.answer('MIG_DATA_WRITE'), {});
        assert.deepEqual(await raw.ask('MIG_DATA_WRITE', { data: NOTHING }), {});
        assert.equal(typeof (await raw.ask('DEVICE_FEATURE', state(2)[1] as never)), 'object');
      },
      { maxDataXferSize: 8000 },
    ),
  );
});
