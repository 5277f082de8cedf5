import { explain, FerryError } from '../../base/index.ts';
import type { Outcome } from '../../porcelain/index.ts';
import { formatBytes, formatCount, formatDuration, formatRate } from './quantity.ts';
import { pairs } from './table.ts';

/** An outcome as the members of the result line. */
export function outcomeFacts(outcome: Outcome): object {
  const { status, error, message, ...facts } = outcome;
  return {
    status,
    ...facts,
    ...(error === undefined ? {} : { error: errorFacts(error) }),
    ...(message === '' ? {} : { message }),
  };
}

/** The code and facts of the fault, and one line for people. */
export function errorFacts(error: Error): object {
  return { ...(error instanceof FerryError ? error.fault : { code: 'ERROR' }), message: explain(error) };
}

/** How it ended, the figures, and where the guest is. */
export function outcomeText(outcome: Outcome, figures = pairs(figureRows(outcome))): string {
  const head = `${outcome.status}${outcome.error === undefined ? '' : `: ${explain(outcome.error)}`}\n`;
  const tail = outcome.message === '' ? '' : `${outcome.message}\n`;
  return head + figures + tail;
}

/** What is known of the transfer, a row each. */
export function figureRows({ totalTimeMs, downtimeMs, ram, handshake }: Outcome): [string, string][] {
  const rows: [string, string][] = [];
  for (const { name, value, source, destination } of handshake?.settled ?? []) {
    rows.push(['settled', `${name} ${value} (source ${source}, destination ${destination})`]);
  }
  if (totalTimeMs !== undefined) rows.push(['total time', formatDuration(totalTimeMs)]);
  if (downtimeMs !== undefined) rows.push(['downtime', formatDuration(downtimeMs)]);
  if (ram?.['dirty-sync-count'] !== undefined) rows.push(['rounds', formatCount(ram['dirty-sync-count'])]);
  if (ram?.transferred !== undefined) rows.push(['transferred', formatBytes(ram.transferred)]);
  if (ram?.normal !== undefined) rows.push(['normal pages', formatCount(ram.normal)]);
  if (ram?.duplicate !== undefined) rows.push(['zero pages', formatCount(ram.duplicate)]);
  if (ram?.transferred !== undefined && totalTimeMs !== undefined && totalTimeMs > 0) {
    rows.push(['throughput', formatRate((ram.transferred * 1000) / totalTimeMs)]);
  }
  return rows;
}
