/** The device contract, for emulated VFs of all options: the device itself on a clock of the test's, and in its own thread. */
import assert from 'node:assert/strict';
import {
  type DeviceEvidence,
  EmulatedDevice,
  EmulatedVf,
  type VfioDevice,
  type VfOptions,
  vfOptions,
} from '../../src/vfio/index.ts';
import { type DeviceUnderTest, deviceContract } from '../contract/device.ts';
import { TestClock } from '../support/device-clock.ts';

const KIB = 1024;
const SMALL = {
  'state-size': 640 * KIB,
  'initial-size': 512 * KIB,
  'working-set': 400 * KIB,
  'state-rate': 50e6,
  'arc-ms': 1,
};

function whole(evidence: DeviceEvidence): void {
  assert.ok(evidence.state.pagesChecked > 0);
  assert.equal(evidence.state.pagesBad, 0, `page ${evidence.state.firstBad} and ${evidence.state.pagesBad - 1} others`);
  assert.equal(evidence.dma?.pagesBad ?? 0, 0);
}

const variants = [false, true].flatMap((p2p) =>
  [false, true].map((precopy) => ({ p2p, precopy, deadlines: precopy, 'dma-logging': p2p })),
);

for (const variant of variants) {
  const optionsWith = (faults: readonly string[]): VfOptions => vfOptions({ ...SMALL, ...variant, faults });
  const called = `${variant.p2p ? 'P2P' : 'no P2P'}, ${variant.precopy ? 'PRE_COPY' : 'no PRE_COPY'}`;
  const subject = (
    device: VfioDevice & { evidence(): Promise<DeviceEvidence> },
    run: () => Promise<void>,
  ): DeviceUnderTest => ({
    device,
    run,
    verify: async () => whole(await device.evidence()),
    dispose: () => device.close(),
  });
  deviceContract({
    name: `device, ${called}`,
    open: async (faults = []) => {
      const clock = new TestClock();
      const device = new EmulatedDevice({ name: 'vf', options: optionsWith(faults), dmaIova: 0, clock });
      return subject(device, async () => {
        for (let i = 0; i < 5; i++) {
          await clock.sleep(clock.now() + 2);
          device.tick();
        }
      });
    },
  });
  if (variant.p2p !== variant.precopy) continue;
  deviceContract({
    name: `thread, ${called}`,
    open: async (faults = []) => {
      const device = await EmulatedVf.open({ name: 'vf', options: optionsWith(faults), dmaIova: 0 });
      return subject(device, async () => {
        const { operations } = await device.evidence();
        while ((await device.evidence()).operations < operations + 50) await new Promise((r) => setTimeout(r, 2));
      });
    },
  });
}
