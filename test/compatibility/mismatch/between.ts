/** A cell between two vmferry ends: two processes' worth of machine, settings and migration, as their managers see them, in this one. */
import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';
import { explain } from '../../../src/base/index.ts';
import { type MigrationInfo, VmHost } from '../../../src/migration/index.ts';
import { formatAddress } from '../../../src/transport/index.ts';
import { vfOptions } from '../../../src/vfio/index.ts';
import { type MachineWithVfs, machineWithVfs, verifyAll } from '../../support/vf-machines.ts';
import { objectsOf, orRefusal, settingsOf, stillWaits, WAITS_ON_MS } from './ends.ts';
import { type Cell, type EndReport, endOf, type Played, SIDES, type Side } from './model.ts';

const MIB = 1024 * 1024;
const MACHINE = { ram: 2 * MIB, vcpus: 1, dirtyRate: 1e6 };
/** How often an end is looked at: managers poll too, ms. */
const POLL_MS = 5;
const OVER: ReadonlySet<string> = new Set(['completed', 'failed', 'cancelled']);

interface End extends MachineWithVfs {
  readonly host: VmHost;
}

/** Throws what is wrong with the guest, NotTaken, and when `signal` aborts. */
export async function playBetween(cell: Cell, tls: string, signal: AbortSignal): Promise<Played> {
  const ends: End[] = [];
  try {
    for (const side of SIDES) ends.push(await openEnd(cell, side, tls));
    const [source, destination] = ends as [End, End];
    await source.machine.resume();
    const played = await move(cell, source.host, destination.host, signal);
    const moved = played.ends.every(({ completed }) => completed);
    assert.equal(source.machine.runState, moved ? 'postmigrate' : 'running', 'the guest at the source');
    await verifyAll(moved ? destination : source);
    return played;
  } finally {
    for (const { host } of ends) await host.quit();
    await Promise.all(ends.map((end) => end.close()));
  }
}

async function openEnd(cell: Cell, side: Side, tls: string): Promise<End> {
  const { column } = cell;
  const end = endOf(cell, side);
  const settings = settingsOf(end, column.way === 'between' && column.handshake);
  const vfs = (end.vfs ?? []).map((vf, i) => vfOptions({ seed: 100 + i, ...vf }));
  const machine = await machineWithVfs({ vfs, workload: { ...MACHINE, ...end.workload } }, side === 'destination');
  const quit = async () => {};
  const host = new VmHost({ name: side, machine: machine.machine, settings, objects: objectsOf(tls, side), quit });
  return { ...machine, host };
}

async function move({ row }: Cell, source: VmHost, destination: VmHost, signal: AbortSignal): Promise<Played> {
  const startedMs = performance.now();
  const passedMs = () => performance.now() - startedMs;
  const refusal = await orRefusal(destination.migrateIncoming('tcp:127.0.0.1:0', { exitOnError: false }));
  if (refusal instanceof Error) return { ends: [refused('destination', refusal)], ms: passedMs() };
  const sent = await orRefusal(source.migrate(formatAddress(destination.listening!)));
  if (sent instanceof Error) return { ends: [refused('source', sent)], ms: passedMs() };
  if (row.postcopy) await source.migrateStartPostcopy();
  const hosts = { source, destination };
  for (let firstMs: number | undefined; ; ) {
    const infos = SIDES.map((side) => hosts[side].queryMigrate());
    const over = infos.filter(isOver).length;
    if (over > 0) firstMs ??= passedMs();
    const ends = infos.map((info, i) => reportOf(SIDES[i]!, info));
    if (over === infos.length) return { ends, ms: passedMs() };
    // The time that counts is that of the one who was refused.
    if (firstMs !== undefined && passedMs() - firstMs > WAITS_ON_MS) return { ends, ms: firstMs };
    // A person, who is there at once.
    if (infos[0]?.status === 'pre-switchover') await source.migrateContinue('pre-switchover');
    await pause(POLL_MS, undefined, { signal });
  }
}

function isOver({ status }: MigrationInfo): boolean {
  return status !== undefined && OVER.has(status);
}

function reportOf(side: Side, info: MigrationInfo): EndReport {
  const words = info['error-desc'] ?? (isOver(info) ? '' : stillWaits(info['x-waiting-for']));
  const settled = (info['x-handshake']?.settled ?? []).map(
    (one) => `${one.name} is ${one.source} at the source, ${one.destination} at the destination: ${one.value} at both`,
  );
  return { who: 'vmferry', side, completed: info.status === 'completed', words, settled };
}

const refused = (side: Side, error: Error): EndReport => ({
  who: 'vmferry',
  side,
  completed: false,
  words: explain(error),
});
