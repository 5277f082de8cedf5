/** Guest memory as the device behind a server reaches it, and the log of what it wrote. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { ERRNO } from '../../../src/vfio/index.ts';
import { vfioUser } from '../../../src/wire/index.ts';
import { type Ask, feature, gone, header, lastGone, logging, map, report, unmap } from './asks.ts';
import { DOORBELL_BAR, RamDevice } from './ram-device.ts';
import { withRaw, withServer } from './support.ts';

const { EINVAL, ENOENT, EACCES } = ERRNO;
const NOTHING = Buffer.alloc(0);

test('the device writes guest memory in messages that the client takes, and only where it may', async () => {
  const device = new RamDevice();
  await withServer(device, ({ socket }) =>
    withRaw(
      socket,
      async (raw) => {
        await raw.ask(...(map(0x1000, 0x1000) as ['DMA_MAP', never]));
        await raw.ask(...(map(0x2000, 0x1000, 1) as ['DMA_MAP', never]));
        await raw.ask(...(map(0x8000, 0x1000, 2) as ['DMA_MAP', never]));
        const written = device.space!.write(0x1800, Buffer.alloc(0x700, 7));
        for (const [address, count] of [
          [0x1800, 1000],
          [0x1be8, 792],
        ]) {
          const asked = await raw.next();
          assert.equal(asked?.command, 12);
          const { address: found, data } = vfioUser.decodeRequest('DMA_WRITE', asked);
          assert.deepEqual([found, data.length, data[0]], [address, count, 7]);
          raw.send(vfioUser.encodeReply(asked.id, 'DMA_WRITE', { address: found, count: data.length }));
        }
        await written;
        await assert.rejects(device.space!.write(0x2000, Buffer.alloc(1)), { fault: dmaFault('DMA_WRITE', EACCES) });
        await assert.rejects(device.space!.read(0x8000, Buffer.alloc(1)), { fault: dmaFault('DMA_READ', EACCES) });
        await assert.rejects(device.space!.read(0x3000, Buffer.alloc(1)), { fault: dmaFault('DMA_READ', ENOENT) });
        const reading = device.space!.read(0x1ff8, Buffer.alloc(16));
        const first = await raw.next();
        raw.send(vfioUser.encodeErrorReply(first!.id, 11, 0));
        await assert.rejects(reading, { code: 'VFIOUSER_REFUSED' });
        // What goes over two mappings is two messages.
        const into = Buffer.alloc(16);
        const across = device.space!.read(0x1ff8, into);
        for (const text of ['one half', 'the rest']) {
          const asked = await raw.next();
          const { address } = vfioUser.decodeRequest('DMA_READ', asked!);
          raw.send(vfioUser.encodeReply(asked!.id, 'DMA_READ', { address, data: Buffer.from(text) }));
        }
        await across;
        assert.equal(into.toString(), 'one halfthe rest');
      },
      { maxDataXferSize: 1000 },
    ),
  );
});

test('commands that come while the device waits for guest memory are served after it', async () => {
  const device = new RamDevice();
  await withServer(device, ({ socket }) =>
    withRaw(socket, async (raw) => {
      await raw.ask(...(map(0, 0x1_0000) as ['DMA_MAP', never]));
      raw.send(bell(1, 0, 0x8000, 64));
      raw.send(vfioUser.encodeRequest(2, 'DEVICE_GET_INFO', { argsz: 16 }));
      raw.send(vfioUser.encodeRequest(3, 'DEVICE_RESET', {}));
      const read = await raw.next();
      assert.deepEqual([read?.type, read?.command], ['command', 11]);
      raw.send(vfioUser.encodeReply(read!.id, 'DMA_READ', { address: 0, data: Buffer.alloc(64, 1) }));
      const write = await raw.next();
      raw.send(vfioUser.encodeReply(write!.id, 'DMA_WRITE', { address: 0x8000, count: 64 }));
      for (const id of [1, 2, 3]) assert.deepEqual([(await raw.next())?.id], [id]);
    }),
  );
});

test('a client that floods us instead of answering is let go', async () => {
  const device = new RamDevice();
  await withServer(device, async ({ socket, events }) => {
    await withRaw(socket, async (raw) => {
      await raw.ask(...(map(0, 0x1_0000) as ['DMA_MAP', never]));
      raw.send(bell(1, 0, 0x8000, 64));
      assert.equal((await raw.next())?.command, 11);
      const info = vfioUser.encodeRequest(2, 'DEVICE_GET_INFO', { argsz: 16 });
      raw.send(Buffer.concat(Array.from({ length: 1100 }, () => info)));
      assert.equal(await raw.next(), undefined);
    });
    await gone(events);
    assert.equal((lastGone(events) as { code?: string }).code, 'VFIOUSER_FLOODED');
  });
});

test('a client that does not answer DMA is let go in time, and so is one that answers wrongly', async () => {
  const device = new RamDevice();
  const wrong: readonly (readonly [string, string, (id: number) => Buffer])[] = [
    ['nothing', 'VFIOUSER_SILENT', () => NOTHING],
    [
      'another address',
      'VFIOUSER_BAD_REPLY',
      (id) => vfioUser.encodeReply(id, 'DMA_READ', { address: 8, data: Buffer.alloc(64) }),
    ],
    [
      'too little',
      'VFIOUSER_BAD_REPLY',
      (id) => vfioUser.encodeReply(id, 'DMA_READ', { address: 0, data: Buffer.alloc(63) }),
    ],
    ['a bare header', 'WIRE_UNEXPECTED_VALUE', (id) => header(11, 16, 1, id)],
    [
      'to another command',
      'VFIOUSER_WRONG_REPLY',
      (id) => vfioUser.encodeReply(id, 'DMA_WRITE', { address: 0, count: 64 }),
    ],
    [
      'with another id',
      'VFIOUSER_WRONG_REPLY',
      (id) => vfioUser.encodeReply(id + 1, 'DMA_READ', { address: 0, data: Buffer.alloc(64) }),
    ],
  ];
  await withServer(
    device,
    async ({ socket, events }) => {
      for (const [title, code, answer] of wrong) {
        await withRaw(socket, async (raw) => {
          await raw.ask(...(map(0, 0x1_0000) as ['DMA_MAP', never]));
          const reading = device.space!.read(0, Buffer.alloc(64));
          const asked = await raw.next();
          raw.send(answer(asked!.id));
          await assert.rejects(reading, { code }, title);
          assert.equal(await raw.next(), undefined, title);
        });
        await gone(events);
        assert.equal((lastGone(events) as { code?: string }).code, code, title);
      }
    },
    { dmaMs: 100 },
  );
});

test('a mapping is gone only when nothing is under way to it', async () => {
  const device = new RamDevice();
  await withServer(device, ({ socket }) =>
    withRaw(socket, async (raw) => {
      await raw.ask(...(map(0, 0x1_0000) as ['DMA_MAP', never]));
      const writing = device.space!.write(0, Buffer.alloc(16));
      const asked = await raw.next();
      raw.send(vfioUser.encodeRequest(5, 'DMA_UNMAP', unmap(0, 0x1_0000)[1] as never));
      // Served after the unmapping if that were done by now.
      raw.send(vfioUser.encodeRequest(6, 'DEVICE_RESET', {}));
      await new Promise((resolve) => setImmediate(resolve));
      raw.send(vfioUser.encodeReply(asked!.id, 'DMA_WRITE', { address: 0, count: 16 }));
      await writing;
      assert.deepEqual([(await raw.next())?.id, (await raw.next())?.id], [5, 6]);
      await assert.rejects(device.space!.write(0, Buffer.alloc(1)), { fault: dmaFault('DMA_WRITE', ENOENT) });
    }),
  );
});

test('the log: ranges, page sizes, read and cleared, and the bitmap of an unmapping', async () => {
  const device = new RamDevice();
  await withServer(device, ({ socket }) =>
    withRaw(socket, async (raw) => {
      await raw.ask(...(map(0, 0x10_0000) as ['DMA_MAP', never]));
      const put = async (address: number, count: number) => {
        const writing = device.space!.write(address, Buffer.alloc(count));
        const asked = await raw.next();
        raw.send(vfioUser.encodeReply(asked!.id, 'DMA_WRITE', { address, count }));
        await writing;
      };
      const bits = async (iova: number, length: number, pageSize: number) => {
        const [command, value] = report(iova, length, pageSize);
        const answer = await raw.ask(command, value as never);
        if (typeof answer === 'number') return answer;
        const { data, flags, argsz } = answer as vfioUser.Reply<'DEVICE_FEATURE'>;
        assert.deepEqual([flags.index, argsz], [8, 8 + data.length]);
        return data.subarray(24).toString('hex');
      };
      const set = async ([command, value]: Ask) => raw.ask(command, value as never);
      assert.equal(typeof (await set(logging(4096, [{ iova: 0, length: 0x8_0000 }]))), 'object');
      assert.equal(typeof (await set(logging(4096, []))), 'object', 'again, with the same pages');
      assert.equal(await set(logging(8192, [])), EINVAL, 'again, with others');
      await put(0x3ffe, 4);
      await put(0x7_ffff, 1);
      await put(0x8_0000, 1);
      assert.equal(await bits(0, 0x10_0000, 4096), '18000000000000000000000000000080' + '00'.repeat(16));
      assert.equal(await bits(0, 0x10_0000, 4096), '00'.repeat(32), 'read and cleared');
      await put(0x4000, 1);
      assert.equal(await bits(0x4000, 0x1_0000, 0x1_0000), '0100000000000000', 'larger pages');
      assert.equal(await bits(0, 100, 5000), EINVAL);
      assert.equal(await bits(0, 0, 4096), EINVAL);
      assert.equal(await set(report(0, 0x10_0000, 4096, 63)), EINVAL, 'no room for the bitmap');
      await put(0x1000, 1);
      const bitmap = { pageSize: 4096, size: 32 };
      const request = { argsz: 72, flags: 1, address: 0, size: 0x10_0000, bitmap };
      assert.equal(await raw.ask('DMA_UNMAP', { ...request, argsz: 71 }), EINVAL);
      assert.equal(await raw.ask('DMA_UNMAP', { ...request, bitmap: { pageSize: 4096, size: 31 } }), EINVAL);
      const answer = await raw.ask('DMA_UNMAP', request);
      assert.ok(typeof answer === 'object');
      assert.equal(answer.bitmap?.bits.toString('hex'), '0200000000000000' + '00'.repeat(24));
      assert.equal(typeof (await set(feature(7, false, true))), 'object');
      assert.equal(await bits(0, 0x1000, 4096), EINVAL);
    }),
  );
});

function bell(id: number, source: number, target: number, count: number): Buffer {
  const registers = Buffer.alloc(24);
  for (const [i, value] of [source, target, count].entries()) registers.writeBigUInt64LE(BigInt(value), 8 * i);
  const write = (offset: number, data: Buffer, noReply: boolean) =>
    vfioUser.encodeRequest(id, 'REGION_WRITE', { offset, region: DOORBELL_BAR, data }, { noReply });
  return Buffer.concat([write(0, registers.subarray(0, 16), true), write(16, registers.subarray(16), false)]);
}

function dmaFault(command: vfioUser.CommandName, errno: number) {
  return { code: 'VFIOUSER_REFUSED', peer: 'the server', command, errno };
}
