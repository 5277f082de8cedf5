/** One of the two machines of a pair: the embedded machine, with emulated VFs around it or without. Whether it works, and whether all of it is right. */
import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';
import { createWorkload, type WorkloadMachine, type WorkloadOptions } from '../../src/machine/index.ts';
import { type DeviceEvidence, type DeviceHost, type EmulatedVf, VfioMachine } from '../../src/vfio/index.ts';
import { machineWithVfs, type VfSide, verifyAll } from '../support/vf-machines.ts';

export interface PairMachine {
  /** What moves. */
  readonly machine: DeviceHost;
  /** The guest in it. */
  readonly workload: WorkloadMachine;
  readonly vfs: readonly EmulatedVf[];
  evidence(): Promise<readonly DeviceEvidence[]>;
  close(): Promise<void>;
}

/** Without `devices` it is the embedded machine alone. */
export async function pairMachine(
  options: WorkloadOptions,
  devices: Omit<VfSide, 'workload'> | undefined,
  incoming: boolean,
): Promise<PairMachine> {
  if (devices !== undefined) return await machineWithVfs({ ...devices, workload: options }, incoming);
  const workload = await createWorkload({ ...options, incoming });
  return { machine: workload, workload, vfs: [], evidence: async () => [], close: () => workload.dispose() };
}

/** A stopped machine waits for a migration. */
export async function awaitIncoming({ machine, workload }: PairMachine): Promise<void> {
  await workload.awaitIncoming();
  if (machine instanceof VfioMachine) await machine.freshDevices();
}

/**
 * Every page and register of the machine that runs, and of its devices; it runs on afterwards. `reset`: devices that know no more what they have
 * written to guest memory.
 */
export async function verifyWhole(one: PairMachine, reset: readonly string[] = []): Promise<void> {
  const evidence = async () =>
    (await one.evidence()).map((found, i) => (reset.includes(one.vfs[i]!.name) ? { ...found, dma: undefined } : found));
  await verifyAll({ ...one, evidence });
  await one.machine.resume();
}

/** What the guest and the devices have done so far: each number only grows while its owner works. */
export async function progressOf({ workload, evidence }: PairMachine): Promise<readonly number[]> {
  const devices = await evidence();
  return [workload.statistics.operations, ...devices.flatMap((one) => [one.operations, one.dmaOperations])];
}

/** Devices that had to be reset, by name. */
export async function resetsOf({ machine }: PairMachine): Promise<readonly string[]> {
  if (!(machine instanceof VfioMachine)) return [];
  return (await machine.reports()).filter(({ resets }) => resets > 0).map(({ name }) => name);
}

/** How much more everyone must have done to be seen working. */
const STEPS = 20;

/** The guest of one machine works, and its devices with it; those of the other do not. */
export async function expectOnly(runs: PairMachine, stands: PairMachine, deadlineMs: number): Promise<void> {
  assert.equal(runs.machine.runState, 'running');
  assert.notEqual(stands.machine.runState, 'running');
  const still = await standing(stands);
  for (const vf of runs.vfs) assert.equal(await vf.state(), 'RUNNING', `${vf.name} of the machine that runs`);
  const from = await progressOf(runs);
  const endMs = performance.now() + deadlineMs;
  while ((await progressOf(runs)).some((count, who) => count < from[who]! + STEPS)) {
    assert(performance.now() < endMs, 'the guest does not work, or a device of it');
    await pause(2);
  }
  assert.deepEqual(await standing(stands), still, 'the other guest works too, or a device of it');
}

/** What must not change at the end where nothing runs. Devices of a machine that waits are fresh ones, which run by themselves. */
async function standing(one: PairMachine): Promise<readonly (number | string)[]> {
  const states = await Promise.all(one.vfs.map((vf) => vf.state()));
  if (one.machine.runState === 'inmigrate') return [one.workload.statistics.operations, ...states];
  return [...(await progressOf(one)), ...states];
}
