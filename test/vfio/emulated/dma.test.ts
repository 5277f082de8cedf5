/** What an emulated VF stores: DMA and its log, writes to its peer, BAR and configuration space. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { ERRNO, vfOptions } from '../../../src/vfio/index.ts';
import { readAll, refusal } from '../../contract/device.ts';
import { TestClock } from '../../support/device-clock.ts';
import { device, guestMemory, MIB, pass, SMALL } from './support.ts';

test('DMA: every store is in the log of the machine, or in that of the device', async () => {
  for (const own of [false, true]) {
    const { vf, clock } = device(vfOptions({ ...SMALL, 'dma-logging': own }));
    const window = guestMemory(MIB);
    const copy = Buffer.alloc(MIB);
    const memory = Buffer.from(window.memory);
    await vf.attachWindow(window);
    const ranges = [{ iova: window.iova, length: window.length }];
    if (own) await vf.startDmaLogging(4096, ranges);
    const machineLog = new Uint32Array(window.log);
    for (let round = 0; round < 5; round++) {
      await pass(vf, clock, 6);
      if (round === 4) await vf.setState('STOP');
      const map = new Uint32Array(window.length / 4096 / 32);
      if (own) await vf.reportDmaLogging(ranges[0]!, 4096, map);
      else for (let word = 0; word < map.length; word++) map[word] = Atomics.exchange(machineLog, word, 0);
      let dirty = 0;
      for (let page = 0; page < window.length / 4096; page++) {
        if ((map[page >>> 5]! & (1 << (page & 31))) === 0) continue;
        memory.copy(copy, page * 4096, page * 4096, (page + 1) * 4096);
        dirty++;
      }
      assert.ok(dirty > 0 && dirty < 256, `${dirty} pages`);
    }
    assert.ok(copy.equals(memory), 'pages whose bits were set are all that changed');
    if (own)
      assert.ok(
        machineLog.every((word) => word === 0),
        'the machine is not told as well',
      );
    const evidence = await vf.evidence();
    assert.equal(evidence.dma?.pagesBad, 0);
    assert.ok(evidence.dmaOperations > 0);
  }
});

test('DMA logging reports coarser pages and parts of a range, each bit once', async () => {
  const { vf, clock } = device(vfOptions({ ...SMALL, 'dma-rate': 400e6 }));
  const window = guestMemory(MIB);
  await vf.attachWindow(window);
  await vf.startDmaLogging(4096, [{ iova: window.iova, length: MIB }]);
  await pass(vf, clock, 200);
  await vf.setState('STOP');
  const half = new Uint32Array(4);
  await vf.reportDmaLogging({ iova: window.iova, length: MIB / 2 }, 65536, half);
  assert.deepEqual([...half], [0xff, 0, 0, 0]);
  half.fill(0);
  await vf.reportDmaLogging({ iova: window.iova, length: MIB / 2 }, 4096, half);
  assert.deepEqual([...half], [0, 0, 0, 0]);
  const rest = new Uint32Array(4);
  await vf.reportDmaLogging({ iova: window.iova + MIB / 2, length: MIB / 2 }, 4096, rest);
  assert.ok(rest.every((word) => word === 0xffff_ffff));
});

test('no DMA in the P2P states, nothing at all in STOP; stores that memory refuses are counted', async () => {
  const { vf, clock } = device(vfOptions(SMALL));
  await vf.attachWindow(guestMemory(MIB / 2));
  await pass(vf, clock, 20);
  await vf.setState('RUNNING_P2P');
  const quiet = await vf.evidence();
  assert.ok(quiet.dmaFailures > 0 && quiet.dmaFailures < quiet.dmaOperations);
  await pass(vf, clock, 20);
  const later = await vf.evidence();
  assert.equal(later.dmaOperations, quiet.dmaOperations);
  assert.ok(later.operations > quiet.operations);
  await vf.setState('STOP');
  const stopped = await vf.evidence();
  await pass(vf, clock, 20);
  assert.deepEqual(await vf.evidence(), stopped);
});

test('peers: with the P2P states no write between devices is late; without them one is', async () => {
  for (const p2p of [true, false]) {
    const clock = new TestClock();
    const options = vfOptions({ ...SMALL, p2p, 'peer-rate': 100_000 });
    const [a, b] = [device(options, clock).vf, device(options, clock).vf];
    await a.attachPeer(b.peer.mailbox);
    await b.attachPeer(a.peer.mailbox);
    const both = async (state: 'RUNNING_P2P' | 'STOP') => {
      // One after the other, as a machine may do it: the second is still running when the first has stopped.
      for (const vf of [a, b]) {
        await vf.setState(state);
        for (const other of [a, b]) await pass(other, clock, 4);
      }
    };
    for (const vf of [a, b]) await pass(vf, clock, 10);
    if (p2p) await both('RUNNING_P2P');
    await both('STOP');
    const [ea, eb] = [await a.evidence(), await b.evidence()];
    assert.ok(ea.peerSent > 0);
    const late = ea.peerLate + eb.peerLate;
    assert.equal(ea.peerSent + eb.peerSent, ea.peerReceived + eb.peerReceived + late);
    if (p2p) assert.equal(late, 0);
    else assert.ok(late > 0);
  }
});

test('BAR and configuration space: within bounds, what the guest wrote moves with the device', async () => {
  const { vf } = device(vfOptions(SMALL));
  await vf.writeRegion(0, 100, Buffer.from('hello'));
  await vf.writeRegion(7, 4, Buffer.from([6, 0]));
  await vf.writeRegion(7, 0, Buffer.from([1, 2]));
  await vf.writeRegion(7, 16, Buffer.alloc(4, 0xff));
  const space = Buffer.alloc(256);
  await vf.readRegion(7, 0, space);
  assert.deepEqual([space.readUInt16LE(0), space.readUInt16LE(4), space.readUInt32LE(16)], [0xfe44, 6, 0xffff_f000]);
  for (const [index, offset, length] of [
    [0, 4090, 8],
    [0, -1, 1],
    [7, 256, 1],
    [1, 0, 4],
  ] as const) {
    assert.equal((await refusal(vf.readRegion(index, offset, Buffer.alloc(length)))).errno, ERRNO.EINVAL);
    assert.equal((await refusal(vf.writeRegion(index, offset, Buffer.alloc(length)))).errno, ERRNO.EINVAL);
  }
  await vf.setState('STOP_COPY');
  const stream = await readAll(vf);
  const config = await vf.saveConfig();
  const there = device(vfOptions({ ...SMALL, seed: 77 })).vf;
  await there.setState('RESUMING');
  await there.write(stream);
  await there.setState('STOP');
  await there.loadConfig(config);
  const bar = Buffer.alloc(5);
  await there.readRegion(0, 100, bar);
  assert.equal(bar.toString(), 'hello');
  await there.readRegion(7, 0, space);
  assert.equal(space.readUInt16LE(4), 6);
  assert.equal((await there.evidence()).state.pagesBad, 0);
  for (const wrong of [config.subarray(1), Buffer.alloc(config.length), Buffer.concat([config, Buffer.alloc(1)])]) {
    assert.equal((await refusal(there.loadConfig(wrong))).errno, ERRNO.EINVAL);
  }
});
