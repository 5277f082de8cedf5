/** Clients that come, wait, go and say nothing; and the end of a server. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { vfioUser } from '../../../src/wire/index.ts';
import { feature, map, state } from './asks.ts';
import { RamDevice } from './ram-device.ts';
import { RawEnd, withRaw, withServer } from './support.ts';

test('clients come and go, one at a time; the device keeps its state, mappings go with their client', async () => {
  const device = new RamDevice();
  await withServer(device, async ({ socket, events }) => {
    for (let round = 0; round < 5; round++) {
      const waiting = await RawEnd.connect(socket);
      waiting.close();
      await withRaw(socket, async (raw) => {
        assert.deepEqual(await raw.ask(...(map(0, 0x1000) as ['DMA_MAP', never])), {}, 'nothing is mapped yet');
        const before = await raw.ask('DEVICE_FEATURE', feature(2, true, false)[1] as never);
        assert.ok(typeof before === 'object');
        assert.equal((before as vfioUser.Reply<'DEVICE_FEATURE'>).data.readUInt32LE(0), round === 0 ? 2 : 1);
        await raw.ask('DEVICE_FEATURE', state(1)[1] as never);
        const next = await RawEnd.connect(socket);
        next.send(vfioUser.encodeRequest(1, 'VERSION', { major: 0, minor: 0, capabilities: undefined }));
        raw.close();
        assert.equal(typeof (await next.answer('VERSION')), 'object', 'who waits is served when the first is gone');
        next.close();
      });
    }
    assert.equal(events.filter((event) => event.kind === 'client').length, 10);
  });
});

test('who says nothing does not keep others waiting', () =>
  withServer(
    new RamDevice(),
    async ({ socket }) => {
      const silent = await RawEnd.connect(socket);
      await withRaw(socket, async (raw) => assert.deepEqual(await raw.ask('DEVICE_RESET', {}), {}));
      assert.equal(await silent.next(), undefined);
    },
    { versionMs: 100 },
  ));

test('closing a server lets its client go, and its socket', async () => {
  await withServer(new RamDevice(), async ({ server, socket }) => {
    const raw = await RawEnd.connect(socket);
    await raw.greet();
    await server.close();
    assert.equal(await raw.next(), undefined);
    assert.equal(await server.ended, undefined);
    await assert.rejects(RawEnd.connect(socket), { code: 'ENOENT' });
  });
});

test('a server is closed while its device hangs', async () => {
  const device = new RamDevice();
  const hanging = new Promise<void>((resolve) => {
    device.beforeArc = () => {
      resolve();
      return new Promise(() => {});
    };
  });
  await withServer(device, async ({ server, socket }) => {
    const raw = await RawEnd.connect(socket);
    await raw.greet();
    raw.send(vfioUser.encodeRequest(1, 'DEVICE_FEATURE', state(1)[1] as never));
    await hanging;
    await server.close();
    assert.equal(await raw.next(), undefined);
  });
});

test('a device that is lost ends the server, which says why', async () => {
  const device = new RamDevice();
  await withServer(device, async ({ server, socket }) => {
    const raw = await RawEnd.connect(socket);
    await raw.greet();
    device.attachDma = async () => {
      throw new Error('the device is lost');
    };
    raw.close();
    assert.equal((await server.ended)?.message, 'the device is lost');
  });
});
