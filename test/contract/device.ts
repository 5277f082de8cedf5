/**
 * What every VFIO device must do, whatever it is and wherever it lives: run for each implementation with devices of all options. It
 * knows only the contract and the table of arcs.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import {
  type Arc,
  DEVICE_STATES,
  type DeviceState,
  directArcs,
  ERRNO,
  hasState,
  isVfioError,
  pathBetween,
  type ReadResult,
  type VfioDevice,
  type VfioFault,
} from '../../src/vfio/index.ts';

export interface DeviceUnderTest {
  readonly device: VfioDevice;
  /** Lets the device run for a while, so that its state changes. */
  run(): Promise<void>;
  /** Throws unless the device, stopped, is exactly what it should be. */
  verify(): Promise<void>;
  dispose(): Promise<void>;
}

export interface DeviceSuite {
  readonly name: string;
  /** A device with its options that runs; `faults` as an emulated VF takes them. */
  open(faults?: readonly string[]): Promise<DeviceUnderTest>;
}

type Check = (subject: DeviceUnderTest) => Promise<void>;

export function deviceContract(suite: DeviceSuite): void {
  const check = (title: string, run: Check) =>
    test(`${suite.name}: ${title}`, { timeout: 60_000 }, async () => {
      const subject = await suite.open();
      try {
        await run(subject);
      } finally {
        await subject.dispose();
      }
    });

  check('a new device runs', async ({ device }) => {
    assert.equal(await device.state(), 'RUNNING');
  });

  check('every state to every other: along the path, or refused and unchanged', async ({ device }) => {
    const { states } = device.features;
    await device.setState('STOP_COPY');
    const stream = await readAll(device);
    for (const from of DEVICE_STATES) {
      if (from === 'ERROR' || !hasState(states, from)) continue;
      for (const to of DEVICE_STATES) {
        await device.reset();
        await device.setState(from);
        if (from === 'RESUMING') await device.write(Buffer.from(stream));
        const path = pathBetween(states, from, to);
        if (path === undefined) {
          const fault = await refusal(device.setState(to));
          assert.equal(fault.errno, ERRNO.EINVAL, `${from} -> ${to}`);
          assert.equal(await device.state(), from);
          continue;
        }
        const latencies = await device.setState(to);
        assert.equal(await device.state(), to, `${from} -> ${to}`);
        for (const { ms } of latencies) assert.ok(ms >= 0);
        assert.equal(latencies[0]?.from ?? from, from);
        assert.equal(latencies.at(-1)?.to ?? to, to);
        assert.equal(latencies.length === 0, path.length === 0);
      }
    }
  });

  test(`${suite.name}: an arc that fails, at each step of every path: the device says where it is, and reset recovers`, {
    timeout: 120_000,
  }, async () => {
    const { device, dispose } = await suite.open();
    const { states } = device.features;
    await device.setState('STOP_COPY');
    const stream = await readAll(device);
    await dispose();
    for (const arc of DEVICE_STATES.flatMap((from) => directArcs(states, from).map((to) => ({ from, to })))) {
      for (const kind of ['fail', 'break'] as const) {
        const subject = await suite.open(always(`arc ${arc.from}>${arc.to}:${kind},errno=EBUSY`));
        try {
          await failEverywhere(subject.device, arc, kind, stream);
          await subject.verify();
        } finally {
          await subject.dispose();
        }
      }
    }
  });

  check('reset leads to RUNNING from every state', async ({ device }) => {
    for (const state of DEVICE_STATES) {
      if (state === 'ERROR' || !hasState(device.features.states, state)) continue;
      await device.setState(state);
      await device.reset();
      assert.equal(await device.state(), 'RUNNING');
    }
  });

  check('data moves only in a session of its kind', async ({ device }) => {
    const bytes = Buffer.alloc(16);
    for (const state of DEVICE_STATES) {
      if (state === 'ERROR' || !hasState(device.features.states, state)) continue;
      await device.reset();
      await device.setState(state);
      if (!['PRE_COPY', 'PRE_COPY_P2P', 'STOP_COPY'].includes(state)) {
        assert.equal((await refusal(device.read(bytes))).errno, ERRNO.EINVAL, `read in ${state}`);
      }
      if (state !== 'RESUMING') {
        assert.equal((await refusal(device.write(bytes))).errno, ERRNO.EINVAL, `write in ${state}`);
      }
    }
  });

  check('STOP_COPY ends and stays ended', async ({ device }) => {
    await device.setState('STOP_COPY');
    assert.ok((await readAll(device)).length > 0);
    for (let i = 0; i < 3; i++) assert.equal(await device.read(Buffer.alloc(64)), 'end');
  });

  check('a session is as long as its states: the next one begins anew', async ({ device }) => {
    await device.setState('STOP_COPY');
    const first = await readAll(device);
    await device.setState('STOP');
    await device.setState('STOP_COPY');
    const second = await readAll(device);
    assert.ok(first.equals(second));
  });

  check('the stop-copy size is near what is read', async ({ device }) => {
    if (!device.features.stopCopySize) return;
    const before = await device.stopCopySize();
    await device.setState('STOP_COPY');
    const stopped = await device.stopCopySize();
    const read = (await readAll(device)).length;
    for (const size of [before, stopped]) assert.ok(Math.abs(size - read) <= read / 10, `${size} told, ${read} read`);
  });

  check('PRE_COPY: initial data first, then what changes, then nothing for now', async (subject) => {
    const { device } = subject;
    if (!device.features.states.preCopy) return;
    await device.setState('PRE_COPY');
    const known = device.features.precopyInfo;
    if (known) {
      const info = await device.precopyInfo();
      assert.ok(info.initialBytes > 0);
      assert.equal(info.dirtyBytes, 0);
    }
    let initial = Number.POSITIVE_INFINITY;
    const into = Buffer.alloc(256 * 1024);
    for (let i = 0; i < 10_000; i++) {
      if (known) {
        const { initialBytes } = await device.precopyInfo();
        assert.ok(initialBytes <= initial, 'initial bytes only fall');
        initial = initialBytes;
        if (initial === 0) break;
      }
      if ((await device.read(into)) === 'nothing now') break;
    }
    if (known) assert.equal(initial, 0);
    await subject.run();
    if (known) assert.ok((await device.precopyInfo()).dirtyBytes > 0, 'it has changed what was read');
    // A device that goes on changing may never come to an end of it: stopping its changes is another state.
    if (device.features.states.p2p) await device.setState('PRE_COPY_P2P');
    await device.setState('STOP_COPY');
    assert.ok((await readAll(device)).length > 0);
    await device.setState('STOP');
    if (known) assert.equal((await refusal(device.precopyInfo())).errno, ERRNO.EINVAL);
  });

  check('what was read is a device again, however it is cut', async (subject) => {
    const { device } = subject;
    await subject.run();
    const stream = await saveWhole(subject);
    for (const cut of [stream.length, 4096, 1000, 77]) {
      await device.reset();
      await device.setState('RESUMING');
      for (let at = 0; at < stream.length; at += cut) await device.write(Buffer.from(stream.subarray(at, at + cut)));
      await device.setState('STOP');
      await subject.verify();
      await device.setState('STOP_COPY');
      const again = await readAll(device);
      await device.setState('STOP');
      assert.ok(again.length > 0);
    }
    await device.setState('RUNNING');
    await subject.run();
    await device.setState('STOP');
    await subject.verify();
  });

  check('a stream that is not whole, or is none, fails the call that ends it', async (subject) => {
    const { device } = subject;
    const stream = await saveWhole(subject);
    for (const part of [0, 1, Math.floor(stream.length / 2), stream.length - 1]) {
      await device.reset();
      await device.setState('RESUMING');
      await device.write(Buffer.from(stream.subarray(0, part)));
      const fault = await refusal(device.setState('STOP'));
      assert.equal(fault.code, 'VFIO_ARC_FAILED');
      assert.ok(['RESUMING', 'ERROR'].includes(await device.state()), `after ${part} bytes`);
    }
    await device.reset();
    await device.setState('RESUMING');
    const spoiled = device.write(Buffer.alloc(4096, 0xa5)).then(() => device.setState('STOP'));
    await refusal(spoiled);
    await device.reset();
    await device.setState('STOP');
    await subject.verify();
  });

  check('calls that overlap are served in the order in which they were made', async ({ device }) => {
    const stopping = device.setState('STOP_COPY');
    const parts = [Buffer.alloc(1000), Buffer.alloc(3000)].map((into) => ({ into, read: device.read(into) }));
    const left = device.setState('STOP');
    const after = refusal(device.read(Buffer.alloc(8)));
    await stopping;
    for (const { into, read } of parts) assert.equal(await read, into.length);
    await left;
    assert.equal((await after).errno, ERRNO.EINVAL);
    await device.setState('STOP_COPY');
    const stream = await readAll(device);
    assert.ok(stream.subarray(0, 4000).equals(Buffer.concat(parts.map(({ into }) => into))));
    const writing = [device.reset(), device.setState('RESUMING'), device.write(Buffer.from(stream))];
    await device.setState('STOP');
    await Promise.all(writing);
  });

  check('after close every call fails, also those under way', async ({ device }) => {
    const underWay = device.setState('STOP');
    await device.close();
    await underWay.catch((error) => assert.equal(error.code, 'VFIO_GONE'));
    for (const call of [() => device.state(), () => device.setState('STOP'), () => device.read(Buffer.alloc(8))]) {
      assert.equal((await refusal(call())).code, 'VFIO_GONE');
    }
    await device.close();
  });

  check('DMA logging keeps the rules of the uAPI', async ({ device }) => {
    const ranges = [{ iova: 0x1000_0000, length: 0x10_0000 }];
    const map = new Uint32Array(8);
    if (!device.features.dmaLogging) {
      await refusal(device.startDmaLogging(4096, ranges));
      return;
    }
    const errno = async (call: Promise<unknown>) => (await refusal(call)).errno;
    assert.equal(await errno(device.reportDmaLogging(ranges[0]!, 4096, map)), ERRNO.EINVAL);
    assert.equal(await errno(device.stopDmaLogging()), ERRNO.EINVAL);
    assert.equal(await errno(device.startDmaLogging(4096, [])), ERRNO.EINVAL);
    assert.equal(await errno(device.startDmaLogging(1000, ranges)), ERRNO.EINVAL);
    assert.equal(await errno(device.startDmaLogging(4096, [{ iova: 1, length: 4096 }])), ERRNO.EINVAL);
    assert.equal(
      await errno(device.startDmaLogging(4096, [...ranges, { iova: 0x100f_f000, length: 4096 }])),
      ERRNO.EINVAL,
    );
    const many = Array.from({ length: 257 }, (_, i) => ({ iova: i * 8192, length: 4096 }));
    assert.equal(await errno(device.startDmaLogging(4096, many)), ERRNO.E2BIG);
    assert.equal(await device.startDmaLogging(4096, ranges), 4096);
    assert.equal(await errno(device.startDmaLogging(4096, ranges)), ERRNO.EINVAL);
    await device.reportDmaLogging(ranges[0]!, 4096, map);
    assert.equal(await errno(device.reportDmaLogging(ranges[0]!, 2048, map)), ERRNO.EINVAL);
    await device.stopDmaLogging();
    assert.equal(await device.startDmaLogging(4096, ranges), 4096);
    await device.stopDmaLogging();
  });

  check('deadlines are kept or refused, and refused by a device that has none', async ({ device }) => {
    if (!device.features.deadlines) {
      const fault = await refusal(device.setState('STOP', { deadlineMs: 10_000 }));
      assert.equal(fault.errno, ERRNO.EOPNOTSUPP);
      assert.equal(await device.state(), 'RUNNING');
      return;
    }
    const needed = await device.estimate('STOP');
    assert.ok(needed !== undefined && needed >= 0);
    const refused = await refusal(device.setState('STOP', { deadlineMs: needed / 2 }));
    assert.equal(refused.code, 'VFIO_DEADLINE_REFUSED');
    assert.equal(await device.state(), 'RUNNING');
    await device.setState('STOP', { deadlineMs: needed * 4 + 1000 });
    assert.equal(await device.state(), 'STOP');
  });

  check('direct arcs are what the estimates add up to', async ({ device }) => {
    const { states } = device.features;
    for (const to of DEVICE_STATES) {
      const estimate = await device.estimate(to);
      if (estimate !== undefined) assert.ok(pathBetween(states, 'RUNNING', to) !== undefined, to);
    }
    for (const to of directArcs(states, 'RUNNING')) {
      const ms = await device.estimate(to);
      assert.ok(ms === undefined || ms >= 0);
    }
  });
}

/** Longer than any of the tests. */
const TIMES = 100;

/** The fault strikes whenever its point is passed. */
function always(fault: string): string[] {
  return Array.from({ length: TIMES }, (_, after) => `${fault},after=${after}`);
}

/** Every path that `arc`, which always fails, is part of. Ends in STOP, or (there is no way there) in RUNNING. */
async function failEverywhere(device: VfioDevice, arc: Arc, kind: 'fail' | 'break', stream: Buffer): Promise<void> {
  const { states } = device.features;
  const stays = kind === 'fail' ? arc.from : 'ERROR';
  const leads = (from: DeviceState, to: DeviceState) =>
    pathBetween(states, from, to)?.some((one) => one.from === arc.from && one.to === arc.to);
  let paths = 0;
  for (const from of DEVICE_STATES) {
    for (const to of DEVICE_STATES) {
      // Where no way leads but this one, nobody ever comes from.
      if (leads(from, to) !== true || leads('RUNNING', from) !== false) continue;
      await device.setState(from);
      if (from === 'RESUMING') await device.write(Buffer.from(stream));
      const fault = await refusal(device.setState(to));
      const expected = { code: 'VFIO_ARC_FAILED', device: device.name, errno: ERRNO.EBUSY, ...arc, state: stays };
      assert.deepEqual(fault, expected, `${from} -> ${to}`);
      assert.equal(await device.state(), stays, `${from} -> ${to}`);
      if (stays === 'ERROR') {
        for (const state of DEVICE_STATES) assert.equal((await refusal(device.setState(state))).errno, ERRNO.EINVAL);
      }
      await device.reset();
      assert.equal(await device.state(), 'RUNNING', `after the reset from ${stays}`);
      paths++;
    }
  }
  assert.ok(paths > 0, `no path has ${arc.from}>${arc.to}`);
  if (leads('RUNNING', 'STOP') === false) await device.setState('STOP');
}

/** Reads a saving session to its end. */
export async function readAll(device: VfioDevice, cut = 100_000): Promise<Buffer> {
  const parts: Buffer[] = [];
  for (;;) {
    const into = Buffer.alloc(cut);
    const result: ReadResult = await device.read(into);
    if (typeof result !== 'number') return Buffer.concat(parts);
    assert.ok(result > 0 && result <= cut);
    parts.push(into.subarray(0, result));
  }
}

/** The whole stream of a running device, by way of PRE_COPY if it has that. The device is stopped then. */
export async function saveWhole({ device, run }: DeviceUnderTest): Promise<Buffer> {
  const parts: Buffer[] = [];
  if (device.features.states.preCopy) {
    await device.setState('PRE_COPY');
    for (let i = 0; i < 3; i++) {
      const into = Buffer.alloc(1_000_000);
      const result = await device.read(into);
      if (typeof result === 'number') parts.push(into.subarray(0, result));
      await run();
    }
  }
  await device.setState('STOP_COPY');
  parts.push(await readAll(device));
  await device.setState('STOP');
  return Buffer.concat(parts);
}

export async function refusal(call: Promise<unknown>): Promise<VfioFault> {
  const thrown = await call.then(
    () => assert.fail('it should have been refused'),
    (error: unknown) => error,
  );
  if (!isVfioError(thrown)) throw thrown;
  return thrown.fault;
}
