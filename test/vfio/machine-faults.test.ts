/** A machine whose devices do not go on when it does: the guest runs, with what there is. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { busyVfs, type MachineWithVfs, machineWithVfs } from '../support/vf-machines.ts';

const MIB = 1024 * 1024;
const TINY = { 'state-size': MIB, 'working-set': MIB / 4, 'dma-size': MIB / 4, p2p: false, 'peer-rate': 0 };
const DEADLINES = { transitionMs: 3_000, dataMs: 3_000, answerMs: 3_000 };

const again = (fault: string, times: number) => Array.from({ length: times }, (_, after) => `${fault},after=${after}`);

/** Faults of one of two devices; its state and resets when the machine runs again. */
const CASES: readonly [title: string, faults: readonly string[], state: string | undefined, resets: number][] = [
  ['refuses once', again('arc STOP>RUNNING:fail', 1), 'RUNNING', 0],
  ['refuses twice', again('arc STOP>RUNNING:fail', 2), 'RUNNING', 1],
  ['breaks', again('arc STOP>RUNNING:break', 1), 'RUNNING', 1],
  ['breaks and does not say so', [...again('arc STOP>RUNNING:break', 1), 'get state:fail,after=1'], 'RUNNING', 1],
  ['hangs', again('arc STOP>RUNNING:hang', 1), undefined, 0],
  ['dies', again('arc STOP>RUNNING:die', 1), undefined, 0],
];

async function vfWorks({ vfs }: MachineWithVfs, index: number): Promise<void> {
  const vf = vfs[index]!;
  const { operations } = await vf.evidence();
  while ((await vf.evidence()).operations < operations + 20) await new Promise((resolve) => setTimeout(resolve, 2));
}

for (const [title, faults, state, resets] of CASES) {
  test(`a device ${title} when the guest goes on`, { timeout: 60_000 }, async (t) => {
    const vfs = [...busyVfs(1, { ...TINY, faults }), ...busyVfs(1, { ...TINY, seed: 5 })];
    const one = await machineWithVfs({ vfs, deadlines: DEADLINES, workload: { ram: 4 * MIB } }, false);
    t.after(() => one.close());
    await one.machine.resume();
    await one.machine.stop('paused');
    await one.machine.resume();
    assert.equal(one.machine.runState, 'running');
    const [first, second] = await one.machine.reports();
    assert.deepEqual([first!.state, first!.resets], [state, resets]);
    assert.deepEqual([second!.state, second!.resets], ['RUNNING', 0]);
    await vfWorks(one, 1);
    if (state !== undefined) await vfWorks(one, 0);
  });
}

test('a device that not even a reset helps keeps the guest stopped, and the error says which', async (t) => {
  const vfs = busyVfs(1, { ...TINY, faults: [...again('arc STOP>RUNNING:break', 1), 'reset:fail,errno=EBUSY'] });
  const one = await machineWithVfs({ vfs, workload: { ram: 4 * MIB } }, false);
  t.after(() => one.close());
  await one.machine.resume();
  await one.machine.stop('paused');
  await assert.rejects(one.machine.resume(), { message: /vf0: reset: the device refused \(EBUSY\)/ });
  assert.equal(one.machine.runState, 'paused');
  await one.machine.resume();
  assert.equal(one.machine.runState, 'running');
});
