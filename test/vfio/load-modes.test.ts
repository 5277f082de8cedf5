/** The ways to load devices at a destination: each is whole, and does what it is called. */
import assert from 'node:assert/strict';
import test from 'node:test';
import type { Settings } from '../../src/settings/index.ts';
import type { DeviceReport, SpanKind } from '../../src/vfio/index.ts';
import { assertCompleted } from '../support/completed.ts';
import { testSettings } from '../support/move.ts';
import { moveOver } from '../support/move-over.ts';
import { busyVfs, type MachineWithVfs, verifyAll, vfPair } from '../support/vf-machines.ts';

const MIB = 1024 * 1024;

type Values = Parameters<Settings['setParameters']>[0];

/** Three devices, the second of which takes longest to load. */
async function moved(
  t: Parameters<typeof vfPair>[0],
  multifd: boolean,
  values: Values,
  slowest = 20e6,
): Promise<MachineWithVfs> {
  const [first, second, third] = busyVfs(3, { precopy: false, 'config-load-ms': 30 });
  const vfs = [first!, { ...second!, 'load-bandwidth': slowest }, third!];
  const { source, destination } = await vfPair(t, { vfs, workload: { ram: 4 * MIB, dirtyRate: 1e6 } });
  const settings = testSettings((one) => {
    one.setCapabilities([{ capability: 'multifd', state: multifd }]);
    one.setParameters({ 'downtime-limit': 20_000, ...values });
  });
  const { ended } = await moveOver({ source: source.machine, destination: destination.machine, settings });
  const result = await ended;
  assertCompleted(result.destination);
  await verifyAll(destination);
  return destination;
}

function span({ spans }: DeviceReport, kind: SpanKind): { readonly startMs: number; readonly endMs: number } {
  const { startMs, endMs } = spans.find((one) => one.kind === kind)!;
  return { startMs, endMs: endMs! };
}

for (const multifd of [true, false]) {
  const where = multifd ? 'on channels' : 'in the stream';

  test(`${where}, parallel: a device's configuration waits for its own state only`, async (t) => {
    const reports = await (await moved(t, multifd, {}, 4e6)).machine.reports();
    const [first, second, third] = reports as [DeviceReport, DeviceReport, DeviceReport];
    for (const one of reports) assert.ok(span(one, 'config').startMs >= span(one, 'load').endMs);
    // On one channel configurations stand behind the state of all devices, but are loaded while a slow one still takes its own.
    for (const one of [first, third]) assert.ok(span(one, 'config').startMs < span(second, 'load').endMs);
  });

  test(`${where}, after-iterables: configurations wait for the state of all devices`, async (t) => {
    const destination = await moved(t, multifd, { 'x-device-config-load': 'after-iterables' });
    const reports = await destination.machine.reports();
    const loaded = Math.max(...reports.map((one) => span(one, 'load').endMs));
    assert.ok(reports.every((one) => span(one, 'config').startMs >= loaded));
  });

  test(`${where}, serial: one configuration at a time${multifd ? '' : ', one device at a time'}`, async (t) => {
    const destination = await moved(t, multifd, { 'x-device-config-load': 'serial' });
    const reports = await destination.machine.reports();
    const one = (kind: SpanKind) => reports.map((report) => span(report, kind)).sort((a, b) => a.startMs - b.startMs);
    const lanes = multifd ? [one('config')] : [one('load'), one('config')];
    for (const lane of lanes)
      for (const [i, next] of lane.slice(1).entries()) assert.ok(next.startMs >= lane[i]!.endMs);
  });
}

test('x-migration-max-queued-buffers-size: devices arrive whole with room for one buffer, and for some', async (t) => {
  for (const bytes of [0, 3 * MIB]) {
    await moved(t, true, { 'x-migration-max-queued-buffers-size': bytes, 'multifd-channels': 3 });
  }
});
