import type { Progress } from '../../porcelain/index.ts';
import { bar } from './bar.ts';
import { formatBytes, formatDuration, formatRate } from './quantity.ts';

const BAR_WIDTH = 22;

/**
 * One line about a migration under way: bar, rate, remaining, dirty rate, expected downtime, ETA; as many of them as fit `columns`
 * (undefined = no limit), the less interesting ones left out first.
 */
export function progressLine(progress: Progress, columns?: number): string {
  const fraction = fractionDone(progress);
  const head = fraction === undefined ? progress.status : gauge(fraction);
  const parts = [head, ...facts(progress).filter((fact) => fact !== head)];
  if (columns === undefined) return parts.join('  ');
  let line = '';
  for (const part of parts) {
    const longer = line === '' ? part : `${line}  ${part}`;
    if (longer.length > columns) break;
    line = longer;
  }
  return line === '' ? (parts[0] ?? '').slice(0, columns) : line;
}

function gauge(fraction: number): string {
  return `${bar(fraction, BAR_WIDTH)} ${String(Math.floor(fraction * 100)).padStart(3)} %`;
}

function facts(progress: Progress): string[] {
  const { ram } = progress;
  const parts: string[] = [];
  if (progress.waitingFor !== undefined) parts.push(`waits for ${progress.waitingFor}`);
  if (ram?.mbps !== undefined) parts.push(formatRate(bytesPerSecond(ram.mbps)));
  if (ram?.remaining !== undefined) parts.push(`${formatBytes(ram.remaining)} left`);
  else if (ram?.transferred !== undefined) parts.push(`${formatBytes(ram.transferred)} received`);
  const eta = etaMs(progress);
  if (eta !== undefined) parts.push(eta === Number.POSITIVE_INFINITY ? 'not converging' : `ETA ${formatDuration(eta)}`);
  const dirty = dirtyBytesPerSecond(progress);
  if (dirty !== undefined) parts.push(`dirty ${formatRate(dirty)}`);
  if (progress.expectedDowntimeMs !== undefined) parts.push(`downtime ~${formatDuration(progress.expectedDowntimeMs)}`);
  if ((ram?.['dirty-sync-count'] ?? 0) > 0) parts.push(`round ${ram?.['dirty-sync-count']}`);
  if (progress.throttlePercentage !== undefined) parts.push(`vCPUs throttled ${progress.throttlePercentage} %`);
  if (progress.status !== 'active') parts.push(progress.status);
  const settled = progress.handshake?.settled.map(({ name, value }) => `${name} ${value}`) ?? [];
  if (settled.length > 0) parts.push(`settled: ${settled.join(', ')}`);
  return parts;
}

/** Share of the guest's RAM that the other side has in its present state; undefined while nothing is known. */
export function fractionDone({ ram }: Progress): number | undefined {
  if (ram?.total === undefined || ram.total === 0) return undefined;
  if (ram.remaining !== undefined) return Math.min(Math.max(1 - ram.remaining / ram.total, 0), 1);
  const pages = (ram.normal ?? 0) + (ram.duplicate ?? 0);
  return Math.min((pages * (ram['page-size'] ?? 4096)) / ram.total, 1);
}

/** Time until what is left has moved at the present rates, ms; Infinity if the guest dirties faster than the link carries. */
export function etaMs(progress: Progress): number | undefined {
  const { ram } = progress;
  if (ram?.remaining === undefined || ram.mbps === undefined || ram.mbps <= 0) return undefined;
  const net = bytesPerSecond(ram.mbps) - (dirtyBytesPerSecond(progress) ?? 0);
  if (net <= 0) return ram.remaining === 0 ? 0 : Number.POSITIVE_INFINITY;
  return (ram.remaining / net) * 1000;
}

/** Known from the second round on: before it the log has not been read. */
function dirtyBytesPerSecond({ ram }: Progress): number | undefined {
  if (ram === undefined || (ram['dirty-sync-count'] ?? 0) < 2) return undefined;
  const rate = ram['dirty-pages-rate'];
  return rate === undefined ? undefined : rate * (ram['page-size'] ?? 4096);
}

/** `mbps` of query-migrate is megabits a second. */
function bytesPerSecond(mbps: number): number {
  return (mbps * 1e6) / 8;
}
