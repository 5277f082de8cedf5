import type { Trip } from '../demo/demo.ts';
import { figureRows } from './outcome.ts';
import { formatBytes, formatCount, formatDuration, formatRate } from './quantity.ts';
import { pairs, table } from './table.ts';
import { timelineText } from './timeline.ts';

/** What happened in one migration of the demo. */
export function tripText(trip: Trip): string {
  const { outcome, guestDowntimeMs } = trip;
  const { ram } = outcome;
  const rows = figureRows(outcome);
  if (guestDowntimeMs !== undefined) {
    const at = rows.findIndex(([label]) => label === 'downtime');
    rows.splice(at < 0 ? rows.length : at + 1, 0, ['  as the guest saw it', formatDuration(guestDowntimeMs)]);
  }
  if (ram?.['normal-bytes'] !== undefined && ram.transferred !== undefined) {
    rows.push(['bytes of pages', formatBytes(ram['normal-bytes'])]);
    rows.push(['bytes beside pages', formatBytes(ram.transferred - ram['normal-bytes'])]);
  }
  if (ram?.['precopy-bytes'] !== undefined) rows.push(['sent while it ran', formatBytes(ram['precopy-bytes'])]);
  if (ram?.['downtime-bytes'] !== undefined) rows.push(['sent while it stood', formatBytes(ram['downtime-bytes'])]);
  rows.push(['verification', verdict(trip)]);
  return pairs(rows) + (trip.devices === undefined ? '' : `\n${timelineText(trip.devices)}`);
}

/** The same in one line, while others are to come. */
export function tripLine(trip: Trip, number: number, count: number): string {
  const { status, totalTimeMs = 0, downtimeMs = 0 } = trip.outcome;
  const times = `${formatDuration(totalTimeMs)}, downtime ${formatDuration(downtimeMs)}`;
  return `migration ${number} of ${count}: ${status === 'completed' ? times : status}; ${verdict(trip)}`;
}

/** And as a table, a line each. */
export function tripsTable(trips: readonly Trip[]): string {
  const head = ['migration', 'total', 'downtime', 'guest saw', 'rounds', 'transferred', 'throughput', 'verification'];
  const rows = trips.map((trip, index) => {
    const { totalTimeMs = 0, downtimeMs = 0, ram } = trip.outcome;
    const transferred = ram?.transferred ?? 0;
    return [
      String(index + 1),
      formatDuration(totalTimeMs),
      formatDuration(downtimeMs),
      trip.guestDowntimeMs === undefined ? '-' : formatDuration(trip.guestDowntimeMs),
      String(ram?.['dirty-sync-count'] ?? '-'),
      formatBytes(transferred),
      formatRate((transferred * 1000) / Math.max(totalTimeMs, 1)),
      verdict(trip),
    ];
  });
  return table(head, rows);
}

function verdict({ verification }: Trip): string {
  if (verification === undefined) return 'not done';
  const pages = formatCount(verification['pages-checked']);
  const vfs = verification['devices-checked'];
  const devices = vfs === 0 ? '' : `, ${vfs} VFs with their DMA among them,`;
  if (verification.verified) return `all ${pages} pages${devices} and the registers are right`;
  return `${formatCount(verification['pages-bad'])} of ${pages} pages and ${verification['registers-bad']} vCPUs are WRONG`;
}
