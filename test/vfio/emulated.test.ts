/** What is the emulated VF's own: its costs, DMA, its peer, faults at every named point. */
import assert from 'node:assert/strict';
import test from 'node:test';
import {
  DEVICE_STATES,
  EmulatedDevice as Device,
  directArcs,
  type EmulatedDevice,
  EmulatedVf,
  ERRNO,
  FAULT_POINTS,
  type FaultPoint,
  pathBetween,
  type SharedWindow,
  VF_PRESETS,
  type VfioFault,
  type VfOptions,
  vfOptions,
} from '../../src/vfio/index.ts';
import { readAll, refusal } from '../contract/device.ts';
import { TestClock } from '../support/device-clock.ts';

const MIB = 1024 * 1024;
const SMALL = { 'state-size': MIB, 'working-set': MIB, 'dma-size': MIB, 'state-rate': 40e6, 'dma-rate': 40e6 };

function device(options: VfOptions, clock = new TestClock()): { vf: EmulatedDevice; clock: TestClock } {
  return { vf: new Device({ name: 'vf', options, dmaIova: 0x1000_0000, clock }), clock };
}

function guestMemory(bytes: number): SharedWindow {
  return {
    iova: 0x1000_0000,
    length: bytes,
    memory: new SharedArrayBuffer(bytes),
    byteOffset: 0,
    log: new SharedArrayBuffer(bytes / 4096 / 8),
    firstBit: 0,
  };
}

async function pass(vf: EmulatedDevice, clock: TestClock, ms: number): Promise<void> {
  for (const end = clock.now() + ms; clock.now() < end; ) {
    await clock.sleep(clock.now() + 2);
    vf.tick();
  }
}

async function moved(options: VfOptions): Promise<{ saveMs: number; loadMs: number; bytes: number }> {
  const { vf, clock } = device(options);
  await vf.setState('STOP_COPY');
  const start = clock.now();
  const stream = await readAll(vf, MIB);
  const saveMs = clock.now() - start;
  const other = device(options);
  await other.vf.setState('RESUMING');
  const loadStart = other.clock.now();
  for (let at = 0; at < stream.length; at += MIB) await other.vf.write(Buffer.from(stream.subarray(at, at + MIB)));
  return { saveMs, loadMs: other.clock.now() - loadStart, bytes: stream.length };
}

test('the cost model: saving, loading and allocation take what they are said to take', async () => {
  const rates = { 'save-bandwidth': 100e6, 'load-bandwidth': 50e6, 'allocation-ms': 30, 'state-size': 8 * MIB };
  const { saveMs, loadMs, bytes } = await moved(vfOptions(rates));
  assert.ok(Math.abs(saveMs - bytes / 100e3) < 6, `saved in ${saveMs} ms`);
  assert.ok(Math.abs(loadMs - (bytes / 50e3 + 30)) < 8, `loaded in ${loadMs} ms`);
  const free = await moved(vfOptions({ 'state-size': 8 * MIB }));
  assert.deepEqual([free.saveMs, free.loadMs], [0, 0]);
});

test('the cost model: arcs and the configuration', async () => {
  const { vf, clock } = device(vfOptions({ 'arc-ms': 7, arcs: { 'STOP>STOP_COPY': 40 }, 'config-load-ms': 70 }));
  const path = await vf.setState('STOP_COPY');
  assert.deepEqual(
    path.map(({ ms }) => ms),
    [7, 7, 40],
  );
  assert.equal(await vf.estimate('RUNNING'), 21);
  const start = clock.now();
  await vf.loadConfig(await vf.saveConfig());
  assert.equal(clock.now() - start, 70);
});

test('REINIT: new initial data once, in PRE_COPY only; told once, and the stream is whole all the same', async () => {
  const options = vfOptions({ ...SMALL, 'initial-size': MIB / 2, 'reinit-ms': 50 });
  const { vf, clock } = device(options);
  await pass(vf, clock, 100);
  await vf.setState('PRE_COPY');
  const parts: Buffer[] = [];
  const readInitial = async () => {
    for (;;) {
      const into = Buffer.alloc(50_000);
      const count = await vf.read(into);
      assert.equal(typeof count, 'number');
      parts.push(into.subarray(0, count as number));
      if ((await vf.precopyInfo()).initialBytes === 0) return;
    }
  };
  assert.equal((await vf.precopyInfo()).reinit, false);
  await readInitial();
  await pass(vf, clock, 20);
  const before = await vf.precopyInfo();
  assert.ok(!before.reinit && before.initialBytes === 0 && before.dirtyBytes > 0);
  await pass(vf, clock, 50);
  const news = await vf.precopyInfo();
  assert.ok(news.reinit && news.initialBytes >= MIB / 2);
  assert.equal(news.dirtyBytes, 0);
  await readInitial();
  await pass(vf, clock, 100);
  const after = await vf.precopyInfo();
  assert.ok(!after.reinit && after.initialBytes === 0);
  await vf.setState('STOP_COPY');
  parts.push(await readAll(vf));
  const there = device(vfOptions(SMALL)).vf;
  await there.setState('RESUMING');
  await there.write(Buffer.concat(parts));
  await there.setState('STOP');
  assert.equal((await there.evidence()).state.pagesBad, 0);
});

test("the presets are the seeds' devices", async () => {
  const hundred = vfOptions({}, 'vf-100m');
  assert.equal(hundred['state-size'], 100 * MIB);
  assert.deepEqual([hundred['config-load-ms'], hundred['config-lock'], hundred.precopy], [70, true, false]);
  const three = vfOptions({}, 'vf-300m');
  assert.ok(Math.abs(three['state-size'] - 300e6) < 4096);
  assert.equal(three['allocation-ms'], 1480);
  const { precopy, 'initial-size': initial, 'config-lock': lock, ...same } = vfOptions({}, 'vf-100m-precopy');
  assert.deepEqual([precopy, initial, lock], [true, 8 * MIB, false]);
  assert.deepEqual({ ...hundred, ...same }, hundred);
  assert.deepEqual(Object.keys(VF_PRESETS), ['small', 'vf-100m', 'vf-100m-precopy', 'vf-300m']);
  assert.equal(vfOptions({ precopy: true }, 'vf-100m').precopy, true);
});

test('a device says when it begins and ends to do something of its own; what it did not do meanwhile is not made up for', async () => {
  const clock = new TestClock();
  const active: boolean[] = [];
  const vf = new Device({
    name: 'vf',
    options: vfOptions({ 'state-size': MIB, 'state-rate': 4096e3 }),
    dmaIova: 0,
    clock,
    activeChanged: (now) => active.push(now),
  });
  await clock.sleep(clock.now() + 5);
  vf.tick();
  await vf.setState('STOP');
  const { operations } = await vf.evidence();
  assert.ok(operations >= 5);
  await vf.setState('STOP_COPY');
  await clock.sleep(clock.now() + 50);
  await vf.setState('STOP');
  await vf.setState('RUNNING');
  vf.tick();
  await vf.setState('STOP');
  assert.deepEqual(active, [true, false, true, false]);
  const later = await vf.evidence();
  assert.ok(later.operations - operations < 10, `${later.operations - operations} operations, stopped for 50 ms`);
  assert.equal(later.state.pagesBad, 0);
});

test('options and faults that cannot be are refused by name', () => {
  const refused = (make: () => unknown, option: string) =>
    assert.throws(make, (error: { fault?: VfioFault }) => {
      assert.equal(error.fault?.code, 'VFIO_OPTION');
      return error.fault.code === 'VFIO_OPTION' && error.fault.option === option;
    });
  refused(() => vfOptions({ 'state-size': 5000 }), 'state-size');
  refused(() => vfOptions({ 'state-size': 0 }), 'state-size');
  refused(() => vfOptions({ 'initial-size': 32 * MIB, 'state-size': 16 * MIB }), 'initial-size');
  refused(() => vfOptions({ 'arc-ms': -1 }), 'arc-ms');
  refused(() => vfOptions({ seed: 1.5 }), 'seed');
  refused(() => vfOptions({ 'save-bandwidth': Number.NaN }), 'save-bandwidth');
  for (const fault of [
    '',
    'read data',
    'read data:explode',
    'nowhere:fail',
    'read data:fail,errno=EFOO',
    'read data:fail,x=1',
    'write data:short',
    'arc STOP>RUNNING:corrupt',
  ]) {
    refused(() => vfOptions({ faults: [fault] }), 'fault');
  }
});

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

/** Calls that pass each point, on a device on its way through a whole migration. */
async function wholeLife(vf: EmulatedDevice): Promise<void> {
  await vf.open();
  await vf.state();
  await vf.startDmaLogging(4096, [{ iova: 0, length: 4096 }]);
  await vf.reportDmaLogging({ iova: 0, length: 4096 }, 4096, new Uint32Array(1));
  await vf.stopDmaLogging();
  await vf.estimate('STOP');
  await vf.setState('STOP_COPY');
  await vf.stopCopySize();
  const stream = await readAll(vf);
  await vf.saveConfig().then((config) => vf.loadConfig(config));
  await vf.setState('PRE_COPY').catch((error) => assert.equal(error.code, 'VFIO_NO_PATH'));
  await vf.reset();
  await vf.setState('PRE_COPY');
  await vf.precopyInfo();
  await vf.setState('RESUMING');
  await vf.write(stream);
  await vf.setState('STOP');
}

test('every operation fails as it is told to, once, and the device is what it was or in ERROR', async () => {
  for (const point of FAULT_POINTS.filter((name) => !name.startsWith('arc '))) {
    for (const kind of ['fail', 'break'] as const) {
      const { vf } = device(vfOptions({ 'state-size': 64 * 1024, faults: [`${point}:${kind},errno=ENOMEM`] }));
      const fault = await refusal(wholeLife(vf));
      assert.equal(fault.code, 'VFIO_OPERATION', point);
      assert.equal(fault.errno, ERRNO.ENOMEM);
      assert.equal((await vf.state()) === 'ERROR', kind === 'break', `${point}:${kind}`);
      // What is half loaded is left by a reset too.
      if (['ERROR', 'RESUMING'].includes(await vf.state())) await vf.reset();
      await vf.setState('STOP');
      assert.equal((await vf.evidence()).state.pagesBad, 0, point);
    }
    const { vf, clock } = device(vfOptions({ 'state-size': 64 * 1024, faults: [`${point}:slow,ms=500`] }));
    await wholeLife(vf);
    assert.ok(clock.now() >= 500, point);
  }
});

test('reads that are short do no harm; lost and wrong data are found where loading ends', async () => {
  const options = (faults: readonly string[]) => vfOptions({ ...SMALL, 'state-size': 64 * 1024, faults });
  for (const kind of ['short', 'lose', 'corrupt'] as const) {
    // In the midst of a page nothing is checked: wrong data are found where a record should begin.
    for (const after of kind === 'corrupt' ? [0] : [0, 3]) {
      const { vf } = device(options([`read data:${kind},after=${after}`]));
      await vf.setState('STOP_COPY');
      const stream = await readAll(vf, 10_000);
      const there = device(options([])).vf;
      await there.setState('RESUMING');
      const arrived = there.write(stream).then(() => there.setState('STOP'));
      assert.equal((await vf.evidence()).faults, 1, `${kind} after ${after}`);
      if (kind === 'short') {
        await arrived;
        assert.equal((await there.evidence()).state.pagesBad, 0);
      } else {
        const { errno } = await refusal(arrived);
        assert.equal(errno, ERRNO.EINVAL, `${kind} after ${after}`);
        await there.reset();
      }
      await vf.setState('STOP');
      assert.equal((await vf.evidence()).state.pagesBad, 0, 'what the source has is as it was');
    }
  }
});

test('every arc fails as it is told to', async () => {
  for (const p2p of [false, true]) {
    const states = { p2p, preCopy: true };
    for (const from of DEVICE_STATES) {
      for (const to of directArcs(states, from)) {
        for (const kind of ['fail', 'break', 'slow'] as const) {
          const fault = `arc ${from}>${to}:${kind},ms=300`;
          const { vf, clock } = device(vfOptions({ ...SMALL, 'state-size': 64 * 1024, p2p, faults: [fault] }));
          await vf.setState('STOP_COPY').catch(() => vf.reset());
          const stream = await readAll(vf).catch(() => Buffer.alloc(0));
          await vf.reset();
          const way = async () => {
            await vf.setState(from);
            if (from === 'RESUMING') await vf.write(stream);
            await vf.setState(to);
          };
          const onTheWay = pathBetween(states, 'RUNNING', 'STOP_COPY')!.some(
            (arc) => arc.from === from && arc.to === to,
          );
          if (kind === 'slow') {
            await way();
            assert.ok(clock.now() >= 300);
          } else if (!onTheWay) {
            const failed = await refusal(way());
            assert.equal(failed.code, 'VFIO_ARC_FAILED', fault);
            assert.equal(await vf.state(), kind === 'break' ? 'ERROR' : from);
          }
          // The fault is over.
          await vf.reset();
          await way();
          assert.equal(await vf.state(), to);
        }
      }
    }
  }
});

test('with a deadline even an arc that hangs is left in time, and nothing is lost', async () => {
  const points = FAULT_POINTS.filter((name): name is FaultPoint => name.startsWith('arc '));
  for (const point of points) {
    for (const kind of ['hang', 'slow', 'fail'] as const) {
      const [from, to] = point.slice(4).split('>') as [
        Parameters<typeof directArcs>[1],
        Parameters<typeof directArcs>[1],
      ];
      const p2p = directArcs({ p2p: true, preCopy: true }, from).includes(to);
      const { vf, clock } = device(vfOptions({ ...SMALL, 'state-size': 64 * 1024, p2p, faults: [`${point}:${kind}`] }));
      const target = pathBetween({ p2p, preCopy: true }, 'PRE_COPY', 'STOP')!.some(
        (arc) => arc.from === from && arc.to === to,
      )
        ? 'STOP'
        : 'STOP_COPY';
      await vf.setState('PRE_COPY', { deadlineMs: 100 }).catch(() => vf.setState('PRE_COPY'));
      const head = Buffer.alloc(20_000);
      await vf.read(head);
      const start = clock.now();
      const outcome = await vf.setState(target, { deadlineMs: 50 }).then(
        () => undefined,
        (error) => error.fault as VfioFault,
      );
      assert.ok(clock.now() - start <= 50, `${point}:${kind}: ${clock.now() - start} ms`);
      assert.equal(await vf.state(), outcome === undefined ? target : 'PRE_COPY');
      if (outcome === undefined || target === 'STOP') continue;
      // The session is the one it was: its stream goes on, and is whole.
      await pass(vf, clock, 10);
      await vf.setState('STOP_COPY');
      const stream = Buffer.concat([head, await readAll(vf)]);
      const there = device(vfOptions({ ...SMALL, 'state-size': 64 * 1024 })).vf;
      await there.setState('RESUMING');
      await there.write(stream);
      await there.setState('STOP');
      assert.equal((await there.evidence()).state.pagesBad, 0, point);
    }
  }
});

test('in its thread: hanging and dying devices answer everyone when they are closed or gone', async () => {
  const open = (fault: string) =>
    EmulatedVf.open({ name: 'vf', options: vfOptions({ ...SMALL, faults: [fault] }), dmaIova: 0 });
  const hung = await open('arc RUNNING>RUNNING_P2P:hang');
  const stopping = refusal(hung.setState('STOP'));
  const waiting = refusal(hung.state());
  await hung.close();
  assert.deepEqual([(await stopping).code, (await waiting).code], ['VFIO_GONE', 'VFIO_GONE']);
  const dying = await open('stop-copy size:die');
  assert.equal((await refusal(dying.stopCopySize())).code, 'VFIO_GONE');
  assert.equal((await refusal(dying.state())).code, 'VFIO_GONE');
  await dying.close();
  const refused = await refusal(open('open:fail,errno=ENODEV'));
  assert.deepEqual([refused.code, refused.errno], ['VFIO_OPERATION', ERRNO.ENODEV]);
  await refusal(open('open:die'));
});

test('in its thread: DMA over messages is done before the device is quiet', async () => {
  const options = vfOptions({ ...SMALL, 'dma-size': MIB, 'dma-logging': false });
  const vf = await EmulatedVf.open({ name: 'vf', options, dmaIova: 0x1000_0000 });
  try {
    const memory = Buffer.alloc(MIB);
    let busy = 0;
    let writes = 0;
    await vf.attachDma({
      read: async () => {},
      write: async (iova, bytes) => {
        busy++;
        await new Promise((resolve) => setTimeout(resolve, 5));
        bytes.copy(memory, iova - 0x1000_0000);
        writes++;
        busy--;
      },
    });
    while (writes < 50) await new Promise((resolve) => setTimeout(resolve, 2));
    await vf.setState('STOP');
    assert.equal(busy, 0);
    const seen = writes;
    const { dmaOperations, dmaFailures } = await vf.evidence();
    assert.equal(writes, seen);
    assert.deepEqual([2 * dmaOperations, dmaFailures], [writes, 0]);
  } finally {
    await vf.close();
  }
});
