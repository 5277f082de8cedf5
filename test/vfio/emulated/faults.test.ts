/** Faults at every named point of an emulated VF. */
import assert from 'node:assert/strict';
import test from 'node:test';
import {
  DEVICE_STATES,
  directArcs,
  type EmulatedDevice,
  ERRNO,
  FAULT_POINTS,
  type FaultPoint,
  pathBetween,
  type VfioFault,
  vfOptions,
} from '../../../src/vfio/index.ts';
import { readAll, refusal } from '../../contract/device.ts';
import { device, pass, SMALL } from './support.ts';

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
