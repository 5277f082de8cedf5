/**
 * The six ways in which two versions of QEMU can meet two machine types, as the discussion of QEMU's hw_compat tables counts them. X is QEMU 7.2, Y is 11.1;
 * what differs between them is when multifd channels meet (multifd-flush-after-each-section), how devices wait, where zero pages go.
 */
import assert from 'node:assert/strict';
import test, { describe, it } from 'node:test';
import { explain } from '../../src/base/index.ts';
import { QemuProcess } from '../../src/qemu/index.ts';
import { machineName, scenarioOf } from '../conformance/matrix.ts';
import { cellName } from '../conformance/model.ts';
import { runCell } from '../conformance/runner.ts';
import { peerOrSkip } from '../support/peers.ts';

const [X, Y] = ['7.2', '11.1'] as const;

/** Versions of the QEMU at the source, of its machine type, and of the QEMU at the destination. */
const SIX: readonly [a: string, machine: string, b: string, possible: boolean][] = [
  [X, X, X, true],
  [X, Y, X, false],
  [Y, X, Y, true],
  [Y, Y, Y, true],
  [X, X, Y, true],
  [Y, X, X, true],
];

describe('machine types X and Y', { concurrency: 2 }, () => {
  for (const [a, version, b, possible] of SIX) {
    const machine = machineName('pc', version);
    if (!possible) continue;
    // By way of vmferry the difficult ones: it speaks the old dialect with both.
    const roles = a === b ? (['migrate'] as const) : (['migrate', 'save-restore'] as const);
    for (const role of roles) {
      const cell = {
        scenario: scenarioOf('multifd/tcp'),
        role,
        pair: { a, b },
        machine,
        guest: 'boot',
        smoke: true,
      } as const;
      it(cellName(cell), async (t) => {
        const { outcome, reason } = await runCell(cell);
        if (outcome === 'skip') t.skip(reason);
        else assert.equal(outcome, 'pass', reason);
      });
    }
  }
});

for (const [older, newer] of [
  [X, Y],
  [X, '10.0'],
  ['10.0', Y],
] as const) {
  const { peer, skip } = await peerOrSkip(older);
  test(`QEMU ${older} has no machine type of ${newer}: that one is impossible`, { skip }, async () => {
    assert(peer !== undefined);
    const starting = QemuProcess.start({
      peer,
      args: ['-nodefaults', '-machine', machineName('pc', newer), '-accel', 'tcg'],
    });
    await assert.rejects(starting, (error) => /unsupported machine type/.test(explain(error)));
  });
}
