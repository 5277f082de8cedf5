/** Faults of devices that once went wrong, each by itself, and a smoke run of the campaign; every point in every way: `npm run faults:devices`. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { renderReport, runCampaign, smoke } from '../campaign/campaign.ts';
import { type DeviceFault, deviceFaults } from '../campaign/device-faults.ts';

const WHOLE = { p2p: true, preCopy: true };
const STOP_COPY = { p2p: true, preCopy: false };
const PLAIN = { p2p: false, preCopy: false };

type Case = Pick<DeviceFault, 'side' | 'states' | 'point' | 'kind'> & Partial<DeviceFault>;

/** Where guest and devices are afterwards, and what has become of the device. */
const CASES: readonly [title: string, fault: Case, runsAt: 'source' | 'destination', device: string][] = [
  [
    'a device that breaks before the migration has come to it is repaired',
    { side: 'source', states: WHOLE, point: 'start DMA logging', kind: 'break' },
    'source',
    'reset',
  ],
  [
    'one of two devices is not quiet: the other is not stopped while it still writes to it',
    { side: 'source', states: WHOLE, point: 'arc PRE_COPY>PRE_COPY_P2P', kind: 'fail' },
    'source',
    'as it was',
  ],
  [
    'a device does not leave its saving session',
    {
      side: 'source',
      states: WHOLE,
      point: 'arc PRE_COPY>RUNNING',
      kind: 'fail',
      course: 'cancelled while the guest runs',
    },
    'source',
    'as it was',
  ],
  [
    'a device refuses to run again',
    {
      side: 'source',
      states: PLAIN,
      point: 'arc STOP>RUNNING',
      kind: 'fail',
      course: 'cancelled when it is stopped',
    },
    'source',
    'as it was',
  ],
  [
    'a device dies on its way back',
    {
      side: 'source',
      states: WHOLE,
      point: 'arc STOP>RUNNING_P2P',
      kind: 'die',
      course: 'cancelled when it is stopped',
    },
    'source',
    'given up',
  ],
  [
    'a device gives wrong data',
    { side: 'source', states: STOP_COPY, point: 'read data', kind: 'corrupt', way: 'channels' },
    'source',
    'as it was',
  ],
  [
    'there is no memory for what a device needs',
    { side: 'destination', states: WHOLE, point: 'allocate', kind: 'fail', errno: 'ENOMEM', way: 'channels' },
    'source',
    'as it was',
  ],
  [
    'a device breaks when it is to start, all the rest being done',
    { side: 'destination', states: WHOLE, point: 'arc RUNNING_P2P>RUNNING', kind: 'break' },
    'source',
    'as it was',
  ],
  [
    'a device is not made fresh after a migration that has failed',
    {
      side: 'destination',
      states: PLAIN,
      point: 'reset',
      kind: 'break',
      course: 'cancelled when it is stopped',
    },
    'source',
    'as it was',
  ],
  [
    'a device dies when the guest has gone',
    { side: 'source', states: STOP_COPY, point: 'arc STOP_COPY>STOP', kind: 'die' },
    'destination',
    'as it was',
  ],
];

for (const [title, fault, runsAt, device] of CASES) {
  test(title, async () => {
    const parameters: DeviceFault = { course: 'to its end', after: 0, errno: 'EIO', way: 'stream', ...fault };
    const report = await runCampaign(deviceFaults, { seed: 1, count: 1, parameters });
    assert.deepEqual(report.failures, [], renderReport(report));
    assert.equal(report.rows.length, 1, 'the fault has not struck');
    assert.deepEqual([report.rows[0]!['runs at'], report.rows[0]!['device there']], [runsAt, device]);
  });
}

test('devices that fail in a migration, on either side: guest and devices run on, nothing hangs, the next migration works', async () => {
  await smoke(deviceFaults, 3, 4);
});
