/** MigrationInfo of qapi/migration.json, as far as vmferry fills it. Times in ms, sizes in bytes. */
import type { MigrationStatus } from '../migration/index.ts';
import { arrayOf, enumOf, int, number, optional, required, str, struct } from './schema.ts';
import { SOCKET_ADDRESS } from './socket-address.ts';

export const MIGRATION_STATUS = enumOf('MigrationStatus', [
  'none',
  'setup',
  'cancelling',
  'cancelled',
  'active',
  'completed',
  'failed',
  'pre-switchover',
  'device',
  'postcopy-device',
  'postcopy-active',
  'postcopy-paused',
  'postcopy-recover-setup',
  'postcopy-recover',
] satisfies readonly MigrationStatus[]);

const MIGRATION_STATS = struct('MigrationStats', {
  transferred: required(int, 'Bytes sent so far.'),
  remaining: required(int, 'Bytes of memory still to send.'),
  total: required(int, 'Bytes of memory in all.'),
  duplicate: required(int, 'Zero pages sent.'),
  normal: required(int, 'Whole pages sent.'),
  'normal-bytes': required(int, 'Bytes of whole pages sent.'),
  'dirty-pages-rate': required(int, 'Pages the guest dirties per second.'),
  mbps: required(number, 'Megabits sent per second.'),
  'dirty-sync-count': required(int, 'How often the dirty log was taken: the number of rounds.'),
  'postcopy-requests': required(int, 'Pages asked for by the destination.'),
  'page-size': required(int, 'Bytes of a page.'),
  'multifd-bytes': required(int, 'Bytes sent over multifd channels.'),
  'pages-per-second': required(int, 'Pages sent per second.'),
  'precopy-bytes': required(int, 'Bytes sent while the guest ran here.'),
  'downtime-bytes': required(int, 'Bytes sent while the guest stood still.'),
  'postcopy-bytes': required(int, 'Bytes sent while the guest ran on the destination.'),
  'dirty-sync-missed-zero-copy': required(int, 'Always 0: there is no zero-copy send.'),
  'x-postcopy-ahead-mean': optional(int, 'Bytes that requested pages found waiting before them in this process.'),
  'x-postcopy-ahead-max': optional(int, 'The most that any found.'),
  'x-postcopy-on-the-way-mean': optional(
    int,
    'Bytes of the background that were on their way, from this process to their place, when pages were requested.',
  ),
  'x-postcopy-on-the-way-max': optional(int, 'The most that there were.'),
});

const XBZRLE_STATS = struct('XBZRLECacheStats', {
  'cache-size': required(int, 'Bytes of the cache.'),
  bytes: required(int, 'Bytes sent as differences.'),
  pages: required(int, 'Pages sent as differences.'),
  'cache-miss': required(int, 'Pages that were not in the cache.'),
  'cache-miss-rate': required(number, 'Share of the pages of the last round that were not in the cache.'),
  'encoding-rate': required(number, 'How many times smaller the differences are than the pages.'),
  overflow: required(int, 'Pages whose difference would have been larger than they are.'),
});

const HANDSHAKE = struct('XHandshake', {
  settled: required(
    arrayOf(
      struct('XSettled', {
        name: required(str, 'A capability or parameter in which the ends differed.'),
        value: required(str, 'What both use now.'),
        source: required(str, 'What the source had.'),
        destination: required(str, 'What the destination had.'),
      }),
    ),
    'Differences that were settled, for this migration only.',
  ),
  warnings: required(arrayOf(str), 'What may not go well, or the guest may notice.'),
});

export const MIGRATION_INFO = struct('MigrationInfo', {
  status: optional(MIGRATION_STATUS, 'State of the last migration; absent if there was none.'),
  ram: optional(MIGRATION_STATS, 'Figures of the memory.'),
  'xbzrle-cache': optional(XBZRLE_STATS, 'With xbzrle.'),
  'total-time': optional(int, 'Since the start of the migration; when it is over, its length.'),
  'expected-downtime': optional(int, 'While the guest runs: how long it would stand still now.'),
  downtime: optional(int, 'How long the guest stood still.'),
  'setup-time': optional(int, 'From the command to the first round.'),
  'cpu-throttle-percentage': optional(int, 'With auto-converge, once it throttles.'),
  'error-desc': optional(str, 'Why the migration failed.'),
  'postcopy-blocktime': optional(int, 'Destination: how long all vCPUs waited for pages at once.'),
  'postcopy-vcpu-blocktime': optional(arrayOf(int), 'Destination: how long each vCPU waited for pages.'),
  'postcopy-latency': optional(int, 'Destination: mean time until a requested page was there, ns.'),
  'postcopy-latency-dist': optional(
    arrayOf(int),
    'Destination: number of requests that took 2^n to 2^(n+1) us, from n = 0.',
  ),
  'postcopy-vcpu-latency': optional(arrayOf(int), 'Destination: the mean of each vCPU, ns.'),
  'postcopy-non-vcpu-latency': optional(int, 'Destination: the mean of requests that no vCPU waited for, ns.'),
  'blocked-reasons': optional(arrayOf(str), 'What forbids a migration.'),
  'socket-address': optional(arrayOf(SOCKET_ADDRESS), 'Destination: where the source is awaited.'),
  'x-postcopy-preempt-channels': optional(
    int,
    "vmferry's own, with postcopy-preempt: how many channels for requested pages the two ends use.",
  ),
  'x-missed-stops': optional(
    int,
    "vmferry's own: how often devices could not be stopped within the downtime limit, so that the guest ran on and the migration tried again later.",
  ),
  'x-switchover-ack': optional(
    enumOf('XSwitchoverAck', ['awaited', 'given', 'missed']),
    "vmferry's own: with switchover-ack, whether the destination has said that its devices are ready. missed: it has not, and is not known to " +
      'do so; the switchover has gone on without.',
  ),
  'x-handshake': optional(
    HANDSHAKE,
    "vmferry's own: with x-vmferry-handshake, what the two ends have come to before anything was sent.",
  ),
  'x-waiting-for': optional(str, "vmferry's own: what the migration waits for, or how to go on after a failure."),
});
