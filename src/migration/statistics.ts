import { nowMs } from '../base/index.ts';
import type { ChannelTotals } from '../dataplane/index.ts';
import type { MigrationInfo, MigrationRamStats, MigrationStatus, XbzrleStats } from './host.ts';

/** Window over which bandwidth is measured, ms (QEMU's is 100 too: migration/migration.c BUFFER_DELAY). */
const BANDWIDTH_WINDOW_MS = 100;
/** Windows that the switchover is planned with. */
const WINDOWS_PLANNED_WITH = 4;

const BURSTS_KEPT = 32;
/** Bytes a ms: what QEMU and vmferry send at most unless they are told otherwise (default of max-bandwidth). */
const ASSUMED_BANDWIDTH = (128 * 1024 * 1024) / 1000;

/** What has left so far, as the connections count it. */
export interface Traffic {
  readonly mainBytes: number;
  readonly channels: ChannelTotals;
}

export const NO_CHANNELS: ChannelTotals = { bytes: 0, packets: 0, normalPages: 0, zeroPages: 0, stateBytes: 0 };

/**
 * Counters of one outgoing migration. The engine adds, `info` renders them as query-migrate does. Bytes unless the name says pages;
 * times are monotonic ms.
 */
export class Statistics {
  readonly pageSize: number;
  readonly ramTotalBytes: number;
  startMs = nowMs();
  setupMs = 0;
  endMs: number | undefined;
  stopMs: number | undefined;
  downtimeMs: number | undefined;

  /** Pages that went over the main channel; those of parallel channels are counted there. */
  normalPages = 0;
  zeroPages = 0;
  xbzrlePages = 0;
  xbzrleBytes = 0;
  xbzrleCacheMisses = 0;
  xbzrleOverflows = 0;
  /** Rounds over the dirty log, the first included. */
  syncCount = 0;
  /** Pages in the current bitmap. */
  remainingPages = 0;
  dirtyPagesPerSecond = 0;
  throttlePercentage = 0;

  /** How often devices could not be stopped in time, so that the guest went on. */
  missedStops = 0;
  /** With switchover-ack, once it matters: whether the destination's devices are ready; missed: the switchover has gone on without. */
  switchoverAck: 'none' | 'awaited' | 'given' | 'missed' = 'none';

  transferredBytes = 0;
  precopyBytes = 0;
  downtimeBytes = 0;
  postcopyBytes = 0;
  /** Requests for pages that have come. */
  postcopyRequests = 0;
  /** Bytes that waited in user space, before any requested page, on the channel that such pages take: when each request came, all together, and at most. */
  postcopyAheadBytes = 0;
  postcopyAheadMax = 0;
  /** The same of what was on its way on the main channel, from this process to where it is placed at the destination. */
  postcopyOnTheWayBytes = 0;
  postcopyOnTheWayMax = 0;
  /** What is sent now is sent while the guest runs at the destination. */
  postcopy = false;

  /** What the guest would stand still for if it were stopped now, as last reckoned, ms; undefined: it was not. */
  plannedDowntimeMs: number | undefined;

  /** Bytes a ms over the last full window; 0 until the first is over. */
  bandwidth = 0;
  /** The last few windows in which there was always something to send. */
  #recent: number[] = [];
  /** Of such a window: what is gathered of it. */
  #busyBytes = 0;
  #busyMs = 0;
  /** The last times that all there was to send had arrived: bytes a ms, or more. */
  readonly #bursts: number[] = [];
  pagesPerSecond = 0;
  #traffic: () => Traffic = () => ({ mainBytes: 0, channels: NO_CHANNELS });
  #channels = NO_CHANNELS;
  #windowStartMs = nowMs();
  #windowBytes = 0;
  #windowPages = 0;

  constructor(pageSize: number, ramTotalBytes: number) {
    this.pageSize = pageSize;
    this.ramTotalBytes = ramTotalBytes;
  }

  get pagesSent(): number {
    const { normalPages, zeroPages } = this.#channels;
    return this.normalPages + this.zeroPages + this.xbzrlePages + normalPages + zeroPages;
  }

  /** Where `progress` sees what has been sent. */
  follow(traffic: () => Traffic): void {
    this.#traffic = traffic;
  }

  /** What has been sent, by the one that is followed. */
  get traffic(): Traffic {
    return this.#traffic();
  }

  /** Takes the totals of what was sent; closes the bandwidth window when it is long enough. */
  progress(): void {
    const { mainBytes, channels } = this.#traffic();
    this.#channels = channels;
    const transferredBytes = mainBytes + channels.bytes;
    const added = transferredBytes - this.transferredBytes;
    this.transferredBytes = transferredBytes;
    if (this.stopMs === undefined) this.precopyBytes += added;
    else if (this.postcopy) this.postcopyBytes += added;
    else this.downtimeBytes += added;
    const now = nowMs();
    const spanMs = now - this.#windowStartMs;
    if (spanMs < BANDWIDTH_WINDOW_MS) return;
    this.bandwidth = (transferredBytes - this.#windowBytes) / spanMs;
    this.pagesPerSecond = ((this.pagesSent - this.#windowPages) * 1000) / spanMs;
    this.#windowStartMs = now;
    this.#windowBytes = transferredBytes;
    this.#windowPages = this.pagesSent;
  }

  /**
   * Bytes a ms to plan with: the last window, or the average so far while there is none. The first moments say nothing: then the bytes
   * only fill the socket's buffers.
   */
  get measuredBandwidth(): number {
    if (this.bandwidth > 0) return this.bandwidth;
    const spanMs = nowMs() - this.#windowStartMs;
    return spanMs >= BANDWIDTH_WINDOW_MS / 4 ? (this.transferredBytes - this.#windowBytes) / spanMs : 0;
  }

  /** For `ms` there was always something to send, and `bytes` have gone. */
  busy(bytes: number, ms: number): void {
    this.#busyBytes += bytes;
    this.#busyMs += ms;
    if (this.#busyMs < BANDWIDTH_WINDOW_MS) return;
    if (this.#recent.push(this.#busyBytes / this.#busyMs) > WINDOWS_PLANNED_WITH) this.#recent.shift();
    this.#busyBytes = 0;
    this.#busyMs = 0;
  }

  /** All that there was, `bytes`, has arrived `ms` after the first of it was sent: the link carries that much at least. */
  arrived(bytes: number, ms: number): void {
    if (this.#bursts.push(bytes / ms) > BURSTS_KEPT) this.#bursts.shift();
  }

  /** The destination was at something else than receiving, and is no more: how slow it was says nothing. */
  forgetBandwidth(): void {
    this.#recent = [];
    this.#busyBytes = 0;
    this.#busyMs = 0;
  }

  /**
   * Bytes a ms to promise a downtime by: the slowest of the last windows in which there was always something to send. A link or a processor that
   * others use too gives now more, now less, and the guest that stands still gets what it gets. `idle`: all has been sent that there was. Then the
   * best of what has arrived lately counts too, and where nothing is known at all, ASSUMED_BANDWIDTH: with a guest that changes little there
   * would be nothing to measure by, for ever.
   */
  cautiousBandwidth(idle: boolean): number {
    const gathered = this.#busyMs >= BANDWIDTH_WINDOW_MS / 4 ? this.#busyBytes / this.#busyMs : 0;
    const sustained = this.#recent.length > 0 ? Math.min(...this.#recent) : gathered;
    if (!idle) return sustained;
    const known = Math.max(sustained, ...this.#bursts);
    return known > 0 ? known : ASSUMED_BANDWIDTH;
  }

  ram(): MigrationRamStats {
    const { bytes, normalPages, zeroPages } = this.#channels;
    const normal = this.normalPages + normalPages;
    return {
      transferred: this.transferredBytes,
      remaining: this.remainingPages * this.pageSize,
      total: this.ramTotalBytes,
      duplicate: this.zeroPages + zeroPages,
      normal,
      'normal-bytes': normal * this.pageSize,
      'dirty-pages-rate': Math.round(this.dirtyPagesPerSecond),
      mbps: (this.measuredBandwidth * 8) / 1000,
      'dirty-sync-count': this.syncCount,
      'postcopy-requests': this.postcopyRequests,
      'page-size': this.pageSize,
      'multifd-bytes': bytes,
      'pages-per-second': Math.round(this.pagesPerSecond),
      'precopy-bytes': this.precopyBytes,
      'downtime-bytes': this.downtimeBytes,
      'postcopy-bytes': this.postcopyBytes,
      'dirty-sync-missed-zero-copy': 0,
      ...this.#ahead(),
    };
  }

  #ahead(): Partial<MigrationRamStats> {
    if (this.postcopyRequests === 0) return {};
    return {
      'x-postcopy-ahead-mean': Math.round(this.postcopyAheadBytes / this.postcopyRequests),
      'x-postcopy-ahead-max': this.postcopyAheadMax,
      'x-postcopy-on-the-way-mean': Math.round(this.postcopyOnTheWayBytes / this.postcopyRequests),
      'x-postcopy-on-the-way-max': this.postcopyOnTheWayMax,
    };
  }

  /** A page is asked for while so many bytes wait before it, and so many of others are on their way. */
  requested(aheadBytes: number, onTheWayBytes: number): void {
    this.postcopyRequests++;
    this.postcopyAheadBytes += aheadBytes;
    this.postcopyAheadMax = Math.max(this.postcopyAheadMax, aheadBytes);
    this.postcopyOnTheWayBytes += onTheWayBytes;
    this.postcopyOnTheWayMax = Math.max(this.postcopyOnTheWayMax, onTheWayBytes);
  }

  xbzrle(cacheSize: number): XbzrleStats {
    const tried = this.xbzrlePages + this.xbzrleCacheMisses;
    return {
      'cache-size': cacheSize,
      bytes: this.xbzrleBytes,
      pages: this.xbzrlePages,
      'cache-miss': this.xbzrleCacheMisses,
      'cache-miss-rate': tried === 0 ? 0 : this.xbzrleCacheMisses / tried,
      'encoding-rate': this.xbzrleBytes === 0 ? 0 : (this.xbzrlePages * this.pageSize) / this.xbzrleBytes,
      overflow: this.xbzrleOverflows,
    };
  }

  /** What query-migrate shows in `status`; which members appear in which state is QEMU's rule (fill_source_migration_info). */
  info(status: MigrationStatus): MigrationInfo {
    const now = this.endMs ?? nowMs();
    const info: MigrationInfo = { status };
    if (status === 'none') return info;
    info['total-time'] = Math.round(now - this.startMs);
    info['setup-time'] = Math.round(this.setupMs);
    if (status === 'setup') return info;
    info.ram = this.ram();
    if (this.downtimeMs !== undefined) info.downtime = Math.round(this.downtimeMs);
    else info['expected-downtime'] = Math.round(this.expectedDowntimeMs);
    if (this.missedStops > 0) info['x-missed-stops'] = this.missedStops;
    if (this.switchoverAck !== 'none') info['x-switchover-ack'] = this.switchoverAck;
    if (this.throttlePercentage > 0) info['cpu-throttle-percentage'] = this.throttlePercentage;
    return info;
  }

  get expectedDowntimeMs(): number {
    if (this.plannedDowntimeMs !== undefined) return this.plannedDowntimeMs;
    const bandwidth = this.measuredBandwidth;
    return bandwidth > 0 ? (this.remainingPages * this.pageSize) / bandwidth : 0;
  }
}
