/**
 * A running machine whose device lives behind a vfio-user server moves to another one with a server of its own: the state of the device goes from
 * server to server through the migration, what it writes to guest memory goes with the pages.
 */
import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import {
  createWorkload,
  DEVICE_MEMORY_ADDRESS,
  type DeviceMemory,
  type WorkloadMachine,
} from '../../../src/machine/index.ts';
import { dmaSeed, SharedDma } from '../../../src/vfio/emulated/dma.ts';
import {
  type DmaSpace,
  EmulatedVf,
  openUserDevice,
  type UserDevice,
  VfioMachine,
  type VfOptions,
  vfOptions,
} from '../../../src/vfio/index.ts';
import { assertCompleted } from '../../support/completed.ts';
import { memoryPair } from '../../support/memory-channel.ts';
import { move, testSettings } from '../../support/move.ts';
import { RamDevice } from './ram-device.ts';
import { withServer } from './support.ts';

const MIB = 1024 * 1024;
const VF = { 'state-size': 4 * MIB, 'working-set': MIB, 'dma-size': MIB, 'state-rate': 4e6, 'dma-rate': 2e6 };

interface Side {
  readonly workload: WorkloadMachine;
  readonly machine: VfioMachine;
  readonly device: UserDevice;
}

/** Guest memory for devices, as its address says. */
function spaceOf({ memory, byteOffset, length, iova: base }: DeviceMemory): DmaSpace {
  const bytes = Buffer.from(memory, byteOffset, length);
  return {
    read: async (iova, into) => void bytes.copy(into, 0, iova - base),
    write: async (iova, from) => void from.copy(bytes, iova - base),
  };
}

async function sideOf(t: TestContext, socket: string, incoming: boolean): Promise<Side> {
  const workload = await createWorkload({
    ram: 8 * MIB,
    vcpus: 1,
    dirtyRate: 4e6,
    seed: 7,
    deviceMemory: MIB,
    incoming,
  });
  t.after(() => workload.dispose());
  const device = await openUserDevice({ socket, name: incoming ? 'destination' : 'source' });
  t.after(() => device.close());
  await device.learnConfig();
  const connectMemory = async () => {
    const memory = workload.deviceMemory();
    await device.attachMemory({ ranges: [{ iova: memory.iova, length: memory.length }], space: spaceOf(memory) });
    if (!incoming) await device.enable();
  };
  const machine = await VfioMachine.plug(workload, [
    { device, idstr: '0000:00:04.0/vfio', instance: 0, connectMemory },
  ]);
  return { workload, machine, device };
}

async function servedVf(t: TestContext, options: VfOptions): Promise<EmulatedVf> {
  const vf = await EmulatedVf.open({ name: 'served', options, dmaIova: DEVICE_MEMORY_ADDRESS });
  t.after(() => vf.close());
  return vf;
}

/** Until the device has written to guest memory. */
async function busy(side: Side): Promise<void> {
  const memory = Buffer.from(side.workload.deviceMemory().memory);
  const endMs = performance.now() + 20_000;
  while (memory.every((byte) => byte === 0)) {
    assert.ok(performance.now() < endMs, 'the device does not write');
    await new Promise((resolve) => setImmediate(resolve));
  }
}

for (const precopy of [true, false]) {
  test(`the device behind a server moves with its machine, ${precopy ? 'with' : 'without'} pre-copy`, async (t) => {
    const options = (seed: number) => vfOptions({ ...VF, precopy, seed });
    const [there, here] = [await servedVf(t, options(11)), await servedVf(t, options(99))];
    await withServer(there, ({ socket: from }) =>
      withServer(here, async ({ socket: to }) => {
        const source = await sideOf(t, from, false);
        const destination = await sideOf(t, to, true);
        await source.machine.resume();
        await busy(source);
        // What little goes while the guest runs says nothing of how fast the rest will.
        const settings = testSettings((all) => all.setParameters({ 'avail-switchover-bandwidth': 1e9 }));
        const ends = { source: source.machine, destination: destination.machine };
        const result = await move({ ...ends, settings, channels: memoryPair() }).ended;
        assertCompleted(result.source, result.destination);
        assert.deepEqual([await there.state(), await here.state()], ['STOP', 'RUNNING']);

        await destination.machine.stop('paused');
        const { bad, registersBad } = await destination.workload.verify();
        assert.deepEqual([bad, registersBad], [[], []]);
        const [moved, left] = [await here.evidence(), await there.evidence()];
        assert.equal(moved.state.pagesBad, 0);
        assert.equal(moved.dmaFailures, 0);
        assert.ok(moved.operations >= left.operations && moved.dmaOperations >= left.dmaOperations, 'it has gone on');
        // All that the device has ever written is there, and nothing else.
        const dma = new SharedDma(destination.workload.deviceMemory(), false);
        assert.equal(dma.verify(dmaSeed(11), moved.dmaOperations, MIB / 4096).pagesBad, 0);
      }),
    );
  });
}

test('a server that dies while its device is read fails the migration, and the guest runs on', async (t) => {
  const [there, here] = [new RamDevice({ bytes: 2 * MIB }), new RamDevice({ bytes: 2 * MIB })];
  await withServer(there, ({ socket: from, server }) =>
    withServer(here, async ({ socket: to }) => {
      const source = await sideOf(t, from, false);
      const destination = await sideOf(t, to, true);
      await source.machine.resume();
      const read = there.read.bind(there);
      let reads = 0;
      there.read = async (into) => {
        if (++reads === 2) void server.close();
        return read(into);
      };
      const { ended } = move({ source: source.machine, destination: destination.machine, channels: memoryPair() });
      const result = await ended;
      assert.equal(result.source.status, 'failed');
      assert.equal(result.destination.status, 'failed');
      assert.equal(source.machine.runState, 'running');
    }),
  );
});
