/** Two embedded machines between which one moves, and the verdict on what has arrived. */
import assert from 'node:assert/strict';
import { createWorkload, type WorkloadMachine, type WorkloadOptions } from '../../src/machine/index.ts';

export interface WorkloadPair {
  readonly source: WorkloadMachine;
  readonly destination: WorkloadMachine;
}

/** They end with the test; neither runs yet. */
export async function workloadPair(
  t: { after(f: () => Promise<void>): void },
  options: Partial<WorkloadOptions> = {},
): Promise<WorkloadPair> {
  const common = { ram: 32 * 1024 * 1024, vcpus: 2, dirtyRate: 20e6, seed: 7, ...options };
  const source = await createWorkload(common);
  const destination = await createWorkload({ ...common, incoming: true });
  t.after(async () => {
    await source.dispose();
    await destination.dispose();
  });
  return { source, destination };
}

/** Every page and register is what it must be; a machine that runs is stopped for it. */
export async function verified(machine: WorkloadMachine): Promise<void> {
  if (machine.runState === 'running') await machine.stop('paused');
  const { bad, registersBad, pagesChecked } = await machine.verify();
  assert.deepEqual({ bad, registersBad }, { bad: [], registersBad: [] });
  assert.ok(pagesChecked > 0);
}
