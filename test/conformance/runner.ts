import { explain } from '../../src/base/index.ts';
import { findPeer } from '../../src/qemu/index.ts';
import { linuxGuestMissing } from '../support/guests/guest.ts';
import { playCell } from './cell.ts';
import { type Cell, cellName, guestName, type Result } from './model.ts';

/** Plays a cell, or says why it cannot be played here. Never throws. */
export async function runCell(cell: Cell): Promise<Result> {
  const startedMs = performance.now();
  const done = (outcome: Result['outcome'], reason?: string): Result => ({
    cell: cellName(cell),
    scenario: cell.scenario.id,
    role: cell.role,
    ...cell.pair,
    machine: cell.machine,
    guest: guestName(cell),
    outcome,
    ...(reason === undefined ? {} : { reason }),
    ms: Math.round(performance.now() - startedMs),
  });
  const missing = await whatIsMissing(cell);
  if (missing !== undefined) return done('skip', missing);
  try {
    await playCell(cell);
    return done('pass');
  } catch (thrown) {
    return done('fail', explain(thrown));
  }
}

/** What a cell needs and this machine has not. With CI=true a missing QEMU is no reason: then the cell fails. */
async function whatIsMissing({ pair, guest }: Cell): Promise<string | undefined> {
  if (process.env['CI'] === 'true') return undefined;
  for (const name of [pair.a, pair.b]) {
    if ((await findPeer(name)) === undefined) return `no QEMU ${name} here (node scripts/setup.mjs --peers)`;
  }
  return guest === 'boot' ? undefined : linuxGuestMissing();
}
