/** A pair of machines with emulated VFs: one that runs, one that waits for it. */
import assert from 'node:assert/strict';
import { createWorkload, type WorkloadMachine, type WorkloadOptions } from '../../src/machine/index.ts';
import {
  type DeviceDeadlines,
  type DeviceHost,
  type DevicesInMachine,
  deviceMemoryOf,
  plugDevices,
  type VfOptions,
  vfOptions,
} from '../../src/vfio/index.ts';

const MIB = 1024 * 1024;

/** Small and busy. */
export const BUSY_VF = {
  'state-size': 4 * MIB,
  'working-set': MIB,
  'dma-size': MIB,
  'state-rate': 10e6,
  'dma-rate': 10e6,
};

export interface MachineWithVfs extends DevicesInMachine {
  readonly workload: WorkloadMachine;
}

export interface VfSide {
  readonly vfs: readonly VfOptions[];
  readonly deadlines?: DeviceDeadlines;
  readonly workload?: Partial<WorkloadOptions>;
}

export async function machineWithVfs(side: VfSide, incoming: boolean): Promise<MachineWithVfs> {
  const { vfs, workload: given, ...options } = side;
  const specs = vfs.map((one) => ({ driver: 'vf', options: one }) as const);
  const common = { ram: 16 * MIB, vcpus: 1, dirtyRate: 10e6, seed: 7, deviceMemory: deviceMemoryOf(specs), ...given };
  const workload = await createWorkload({ ...common, incoming });
  const plugged = await plugDevices(workload, specs, options);
  return {
    ...plugged,
    workload,
    close: async () => {
      await plugged.close();
      await workload.dispose();
    },
  };
}

/** Source (with its guest running) and destination; both closed after the test. */
export async function vfPair(
  t: { after(f: () => Promise<void>): void },
  source: VfSide,
  destination: VfSide = source,
): Promise<{ readonly source: MachineWithVfs; readonly destination: MachineWithVfs }> {
  const made: MachineWithVfs[] = [];
  t.after(async () => {
    await Promise.all(made.map((machine) => machine.close()));
  });
  made.push(await machineWithVfs(source, false));
  made.push(await machineWithVfs(destination, true));
  await made[0]!.machine.resume();
  return { source: made[0]!, destination: made[1]! };
}

export function busyVfs(count: number, given: Parameters<typeof vfOptions>[0] = {}): VfOptions[] {
  return Array.from({ length: count }, (_, i) => vfOptions({ ...BUSY_VF, seed: 100 + i, ...given }));
}

export type MachineToVerify = Pick<MachineWithVfs, 'workload' | 'evidence'> & { readonly machine: DeviceHost };

/** Stops the machine and checks every page and register of it and of its VFs, and that no write between VFs was lost. */
export async function verifyAll({ machine, workload, evidence }: MachineToVerify): Promise<void> {
  if (machine.runState === 'running') await machine.stop('paused');
  const verdict = await workload.verify();
  assert.ok(verdict.pagesChecked > 0);
  assert.deepEqual({ bad: verdict.bad, registersBad: verdict.registersBad }, { bad: [], registersBad: [] });
  const all = await evidence();
  for (const [i, vf] of all.entries()) {
    assert.equal(
      vf.state.pagesBad,
      0,
      `vf${i}: ${vf.state.pagesBad} pages of its state, the first is ${vf.state.firstBad}`,
    );
    assert.equal(
      vf.dma?.pagesBad ?? 0,
      0,
      `vf${i}: ${vf.dma?.pagesBad} pages of guest memory, the first is ${vf.dma?.firstBad}`,
    );
    assert.equal(vf.peerLate, 0, `vf${i}: its peer wrote when it was stopped`);
  }
  const sum = (pick: (vf: (typeof all)[number]) => number) => all.reduce((total, vf) => total + pick(vf), 0);
  assert.equal(
    sum((vf) => vf.peerSent),
    sum((vf) => vf.peerReceived),
    'every write between devices has arrived',
  );
}
