/** A running machine moves over parallel channels between two engines of one process; every page and register is verified afterwards. */
import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import type { WorkloadOptions } from '../../src/machine/index.ts';
import type { Settings } from '../../src/settings/index.ts';
import { assertCompleted } from '../support/completed.ts';
import { testSettings } from '../support/move.ts';
import { type MoveOverOptions, moveOver } from '../support/move-over.ts';
import { verified, type WorkloadPair, workloadPair } from '../support/workload-pair.ts';

type Values = Parameters<Settings['setParameters']>[0];

async function machines(t: TestContext, options: Partial<WorkloadOptions> = {}): Promise<WorkloadPair> {
  const pair = await workloadPair(t, { fill: 0.5, ...options });
  await pair.source.resume();
  return pair;
}

function multifd(values: Values): Settings {
  return testSettings((settings) => {
    settings.setCapabilities([{ capability: 'multifd', state: true }]);
    settings.setParameters(values);
  });
}

async function completed(options: MoveOverOptions) {
  const moved = await moveOver(options);
  const { source, destination } = await moved.ended;
  assertCompleted(source, destination);
  assert.equal(destination.confirmed, true);
  return moved;
}

/** Machine types: up to 8.0 the channels meet after each section, later ones after each round. */
const MOVES: readonly [machineType: string, values: Values][] = [
  ['workload-11.1', { 'multifd-channels': 1 }],
  ['workload-11.1', { 'multifd-channels': 4 }],
  ['workload-11.1', { 'multifd-channels': 16 }],
  ['workload-11.1', { 'multifd-channels': 4, 'multifd-compression': 'zlib' }],
  ['workload-11.1', { 'multifd-channels': 4, 'multifd-compression': 'zstd' }],
  ['workload-11.1', { 'multifd-channels': 4, 'multifd-compression': 'zstd', 'multifd-zstd-level': 0 }],
  ['workload-11.1', { 'multifd-channels': 4, 'zero-page-detection': 'legacy' }],
  ['workload-11.1', { 'multifd-channels': 4, 'zero-page-detection': 'none' }],
  ['workload-8.0', { 'multifd-channels': 1 }],
  ['workload-8.0', { 'multifd-channels': 4 }],
  ['workload-8.0', { 'multifd-channels': 4, 'multifd-compression': 'zlib' }],
  ['workload-8.0', { 'multifd-channels': 16, 'zero-page-detection': 'none' }],
];

for (const [machineType, values] of MOVES) {
  test(`${machineType}, ${JSON.stringify(values)}`, async (t) => {
    const { source, destination } = await machines(t, { machineType });
    const { outgoing } = await completed({ source, destination, settings: multifd(values) });
    assert.equal(destination.runState, 'running');
    const { ram } = outgoing.info();
    assert.ok(ram!['multifd-bytes'] > 0 && ram!['multifd-bytes'] <= ram!.transferred);
    assert.ok(ram!.normal > 0);
    assert.equal(ram!.duplicate > 0, values['zero-page-detection'] !== 'none');
    assert.deepEqual(outgoing.threads, []);
    await verified(destination);
  });
}
