import assert from 'node:assert/strict';
import test from 'node:test';
import { FerryError } from '../../../src/base/index.ts';
import { createWorkload, type WorkloadOptions } from '../../../src/machine/index.ts';
import { MIB, machineFor } from './support.ts';

test('options out of range are refused by name', async () => {
  const wrong: [keyof WorkloadOptions, unknown][] = [
    ['ram', 4096],
    ['ram', MIB + 1],
    ['ram', Number.NaN],
    ['ram', 2 ** 50],
    ['vcpus', 0],
    ['vcpus', 65],
    ['vcpus', 1.5],
    ['dirtyRate', -1],
    ['dirtyRate', 1.5],
    ['dirtyRate', Number.POSITIVE_INFINITY],
    ['pattern', 'chaotic'],
    ['seed', -1],
    ['seed', 2 ** 32],
    ['fill', 1.01],
    ['machineType', ''],
    ['uuid', new Uint8Array(15)],
  ];
  for (const [option, value] of wrong) {
    const options = { ram: MIB, vcpus: 1, incoming: true, [option]: value } as WorkloadOptions;
    await assert.rejects(createWorkload(options), (error) => {
      assert.ok(error instanceof FerryError, `${option} ${value}`);
      assert.deepEqual([error.code, error.fault.option], ['WORKLOAD_OPTION', option]);
      return true;
    });
  }
});

test('a machine is what its options say', async (t) => {
  const uuid = Uint8Array.from({ length: 16 }, (_, i) => i);
  const machine = await machineFor(t, {
    machineType: 'pc-q35-10.0',
    uuid,
    seed: 5,
    dirtyRate: 1e6,
    fill: 0,
    incoming: true,
  });
  assert.equal(machine.machineType, 'pc-q35-10.0');
  assert.equal(machine.uuid, uuid);
  assert.equal(machine.runState, 'inmigrate');
  assert.deepEqual(machine.program, { seed: 5, pattern: 'hot-cold', fillPpm: 0, dirtyRate: 1e6 });
  assert.deepEqual(
    machine.ram.map(({ idstr, usedLength }) => [idstr, usedLength]),
    [
      ['workload.ram', 2 * MIB],
      ['workload.vram', MIB],
      ['workload.rom', MIB / 4],
    ],
  );
});
