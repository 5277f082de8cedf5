/**
 * A part of the mismatch table that takes seconds: all settings between two vmferry ends, a few devices, and multifd with a QEMU. All of it: npm run
 * mismatches, which writes docs/mismatches.md.
 */
import assert from 'node:assert/strict';
import test, { after, describe } from 'node:test';
import { allCells } from './mismatch/columns.ts';
import { type Cell, cellName } from './mismatch/model.ts';
import { Player } from './mismatch/play.ts';

const DEVICES = ['a VF', 'a VF, multifd', 'VF with precopy=off, switchover-ack', 'VF with state-size=2M'];

function isSmoke({ row, column }: Cell): boolean {
  if (column.way === 'between') return row.kind === 'device' ? DEVICES.includes(row.title) : row.ends === 'all';
  return row.title === 'multifd' && column.way !== 'driven' && column.version === '11.1';
}

const player = new Player();
after(() => player.close());

describe('what one end has and the other has not', { concurrency: 2 }, () => {
  for (const cell of allCells().filter(isSmoke)) {
    test(cellName(cell), async (t) => {
      const { outcome, words } = await player.play(cell);
      if (outcome === 'skip') t.skip(words);
      else assert.notEqual(outcome, 'fail', words);
    });
  }
});

test('no cell is there twice', () => {
  const names = allCells().map(cellName);
  assert.deepEqual(names, [...new Set(names)]);
});
