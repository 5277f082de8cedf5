/** The cells with devices that every test run plays; all of them: npm run conformance. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { runDeviceCell } from './device-cell.ts';
import { deviceCellName, deviceCells } from './devices.ts';

for (const cell of deviceCells().filter(({ smoke }) => smoke)) {
  test(deviceCellName(cell), async () => {
    const { outcome, reason } = await runDeviceCell(cell);
    assert.equal(outcome, 'pass', reason);
  });
}
