/**
 * A compat property switched by hand, as developers do: --compat or x-set-compat here (test/cli/compat), -global there. A machine type of 11.1 speaks as an
 * old one does in one respect, and a real QEMU that was switched alike understands it, in both directions.
 */
import assert from 'node:assert/strict';
import test, { after } from 'node:test';
import type { CapabilityName } from '../../src/settings/index.ts';
import { cellName, type Row } from './mismatch/model.ts';
import { Player } from './mismatch/play.ts';

/** With what shows it on the wire. */
const SWITCHED: readonly [property: string, value: string, capabilities: readonly CapabilityName[]][] = [
  ['multifd-flush-after-each-section', 'on', ['multifd']],
  ['zero-page-detection', 'legacy', ['multifd']],
  ['send-switchover-start', 'off', []],
];

const player = new Player();
after(() => player.close());

for (const [property, value, capabilities] of SWITCHED) {
  const row: Row = {
    kind: 'machine',
    title: `nothing, with ${property}=${value}`,
    named: new RegExp(property),
    both: { capabilities, compat: [`${property}=${value}`] },
    one: {},
    harmless: true,
    ends: 'all',
  };
  for (const way of ['in', 'out'] as const) {
    const cell = { row, side: 'source', column: { way, version: '11.1' } } as const;
    test(cellName(cell), async (t) => {
      const { outcome, words } = await player.play(cell);
      if (outcome === 'skip') t.skip(words);
      else assert.equal(outcome, 'migrates', words);
    });
  }
}
