/** A device whose every call ends: whatever is asked of a silent one, in its time. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { explain } from '../../src/base/index.ts';
import {
  DEVICE_DEADLINES,
  deviceGone,
  EmulatedVf,
  ERRNO,
  type MigratableDevice,
  operationFailed,
  type VfioFault,
  vfOptions,
} from '../../src/vfio/index.ts';
import { GuardedDevice } from '../../src/vfio/machine/guarded-device.ts';
import { inTime } from '../campaign/deadline.ts';
import { refusal } from '../contract/device.ts';

const DEADLINES = { transitionMs: 31, dataMs: 21, answerMs: 11 };
const BYTES = Buffer.alloc(8);

type Operation = Extract<VfioFault, { code: 'VFIO_SILENT' }>['operation'];

/** Everything that can be asked: which call, what messages call it, and how long it may take. */
const CALLS: readonly [
  method: keyof MigratableDevice,
  operation: Operation,
  deadlineMs: number,
  ask: (device: MigratableDevice) => Promise<unknown>,
][] = [
  ['state', 'get state', DEADLINES.answerMs, (device) => device.state()],
  ['setState', 'set state', DEADLINES.transitionMs, (device) => device.setState('STOP')],
  ['estimate', 'estimate', DEADLINES.answerMs, (device) => device.estimate('STOP')],
  ['read', 'read data', DEADLINES.dataMs, (device) => device.read(BYTES)],
  ['write', 'write data', DEADLINES.dataMs, (device) => device.write(BYTES)],
  ['precopyInfo', 'precopy info', DEADLINES.answerMs, (device) => device.precopyInfo()],
  ['stopCopySize', 'stop-copy size', DEADLINES.answerMs, (device) => device.stopCopySize()],
  ['startDmaLogging', 'start DMA logging', DEADLINES.answerMs, (device) => device.startDmaLogging(4096, [])],
  ['stopDmaLogging', 'stop DMA logging', DEADLINES.answerMs, (device) => device.stopDmaLogging()],
  [
    'reportDmaLogging',
    'report DMA logging',
    DEADLINES.answerMs,
    (device) => device.reportDmaLogging({ iova: 0, length: 4096 }, 4096, new Uint32Array(1)),
  ],
  ['reset', 'reset', DEADLINES.transitionMs, (device) => device.reset()],
  ['saveConfig', 'save config', DEADLINES.answerMs, (device) => device.saveConfig()],
  ['loadConfig', 'load config', DEADLINES.dataMs, (device) => device.loadConfig(BYTES)],
];

/** A device that does the one thing that is asked of it as `answer` says. */
function scripted(answer: () => Promise<unknown>): {
  readonly device: MigratableDevice;
  readonly closed: () => number;
} {
  let closed = 0;
  const close = async () => {
    closed++;
  };
  const methods = Object.fromEntries(CALLS.map(([method]) => [method, answer]));
  return { device: { name: 'vf', close, ...methods } as unknown as MigratableDevice, closed: () => closed };
}

test('a device that says nothing is given up after its time, closed, and not asked again', async () => {
  for (const [method, operation, deadlineMs, ask] of CALLS) {
    const { device, closed } = scripted(() => new Promise(() => {}));
    const guarded = new GuardedDevice(device, DEADLINES);
    const startMs = performance.now();
    const fault = await refusal(ask(guarded));
    assert.deepEqual(
      fault,
      { code: 'VFIO_SILENT', device: 'vf', errno: ERRNO.ETIMEDOUT, operation, deadlineMs },
      method,
    );
    assert.ok(performance.now() - startMs >= deadlineMs - 1, `${method}: given up too early`);
    assert.deepEqual([guarded.lost, closed()], [true, 1], method);
  }
});

test('what it has not answered for a while can be told', async () => {
  let reply: (state: unknown) => void = () => {};
  const { device } = scripted(
    () =>
      new Promise((resolve) => {
        reply = resolve;
      }),
  );
  const guarded = new GuardedDevice(device, DEVICE_DEADLINES);
  const asked = guarded.state();
  assert.equal(guarded.waitingFor, undefined);
  await inTime(
    (async () => {
      while (guarded.waitingFor === undefined) await new Promise((resolve) => setImmediate(resolve));
    })(),
    20_000,
  );
  assert.equal(guarded.waitingFor, 'device vf: get state');
  reply('RUNNING');
  await asked;
  assert.equal(guarded.waitingFor, undefined);
});

test('what the device answers, or how it fails, is passed on; it stays', async () => {
  for (const [method, operation, , ask] of CALLS) {
    const answer: unknown[] = [];
    const answers = scripted(async () => answer);
    assert.equal(await ask(new GuardedDevice(answers.device, DEADLINES)), answer, method);
    const refuses = scripted(() => Promise.reject(operationFailed('vf', operation, ERRNO.EIO, 'it refused')));
    const guarded = new GuardedDevice(refuses.device, DEADLINES);
    const fault = await refusal(ask(guarded));
    assert.deepEqual([fault.code, fault.errno], ['VFIO_OPERATION', ERRNO.EIO], method);
    assert.deepEqual([guarded.lost, refuses.closed()], [false, 0], method);
  }
});

test('a device that is gone is lost at once', async () => {
  for (const [method, operation, , ask] of CALLS) {
    const { device } = scripted(() => Promise.reject(deviceGone('vf', operation)));
    const guarded = new GuardedDevice(device, DEADLINES);
    assert.equal((await refusal(ask(guarded))).code, 'VFIO_GONE', method);
    assert.equal(guarded.lost, true, method);
  }
});

test('closing is no answer that anyone waits for: who waits hears of the silence, who comes later why the device is gone', async () => {
  const device = await EmulatedVf.open({
    name: 'vf',
    options: vfOptions({ 'state-size': 64 * 1024, faults: ['read data:hang'] }),
    dmaIova: 0,
  });
  const guarded = new GuardedDevice(device, { ...DEADLINES, transitionMs: 10_000, dataMs: 200, answerMs: 60_000 });
  await guarded.setState('STOP_COPY');
  const reading = refusal(guarded.read(Buffer.alloc(64)));
  // Served behind the one that hangs, and with more time.
  const behind = guarded.state();
  const gone = assert.rejects(behind, (error) => {
    assert.match(explain(error), /the device is gone.*read data: no answer in 200 ms/);
    return true;
  });
  assert.equal((await reading).code, 'VFIO_SILENT');
  await gone;
  assert.equal((await refusal(guarded.setState('STOP'))).code, 'VFIO_GONE');
  await guarded.close();
});
