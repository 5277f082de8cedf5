/** The device contract, for devices behind a vfio-user socket: emulated ones of all options, served and reached as any other. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  DeviceServer,
  EmulatedDevice,
  type OfferedDevice,
  openUserDevice,
  type VfOptions,
  vfOptions,
} from '../../../src/vfio/index.ts';
import { type DeviceUnderTest, deviceContract } from '../../contract/device.ts';
import { TestClock } from '../../support/device-clock.ts';

const KIB = 1024;
const SMALL = {
  'state-size': 320 * KIB,
  'initial-size': 256 * KIB,
  'working-set': 200 * KIB,
  'state-rate': 50e6,
  'arc-ms': 1,
};

type Device = OfferedDevice & Pick<EmulatedDevice, 'evidence'>;

/** What is offered, and how to let it run for a while. */
interface Offer {
  readonly device: Device;
  readonly run: () => Promise<void>;
}

async function served({ device, run }: Offer): Promise<DeviceUnderTest> {
  const folder = await mkdtemp(join(tmpdir(), 'vmferry-contract-'));
  const socket = join(folder, 'device.sock');
  const server = await DeviceServer.listen({ socket, device });
  const client = await openUserDevice({ socket, name: 'vf' });
  return {
    device: client,
    run,
    verify: async () => assert.equal((await device.evidence()).state.pagesBad, 0),
    dispose: async () => {
      await client.close();
      await server.close();
      await device.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** On this thread, with a clock of the test's. */
function onThisThread(options: VfOptions): Offer {
  const clock = new TestClock();
  const device = new EmulatedDevice({ name: 'vf', options, dmaIova: 0, clock });
  const rest = { regions: [], interrupts: [], attachDma: async () => {} };
  const whole = new Proxy(device, {
    get: (_, name) => {
      if (name in rest) return rest[name as keyof typeof rest];
      const value: unknown = Reflect.get(device, name, device);
      return typeof value === 'function' ? value.bind(device) : value;
    },
  });
  const run = async () => {
    for (let i = 0; i < 5; i++) {
      await clock.sleep(clock.now() + 2);
      device.tick();
    }
  };
  return { device: whole as unknown as Device, run };
}

for (const p2p of [false, true]) {
  for (const precopy of [false, true]) {
    const optionsWith = (faults: readonly string[]) =>
      vfOptions({ ...SMALL, p2p, precopy, deadlines: precopy, faults });
    deviceContract({
      name: `vfio-user, ${p2p ? 'P2P' : 'no P2P'}, ${precopy ? 'PRE_COPY' : 'no PRE_COPY'}`,
      open: async (faults = []) => await served(onThisThread(optionsWith(faults))),
    });
  }
}
