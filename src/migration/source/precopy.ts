import { setTimeout as pause } from 'node:timers/promises';
import { explain, nowMs } from '../../base/index.ts';
import { AutoConverge, type DowntimeParts, expectedDowntime, sumOf } from '../convergence.ts';
import { PING_BURST } from '../return-path.ts';
import type { RamSaver } from './ram-save.ts';
import type { ReturnPathReader } from './return-path-reader.ts';
import type { SourceRun } from './run.ts';
import { stopGuest } from './switchover.ts';

/** Time for page records in one PART section, ms (ram_save_iterate: MAX_WAIT 50). */
const PART_MS = 50;

/** After devices could not be stopped in time the guest runs at least this long, ms; each time twice as long, up to the most. */
const RETRY_MS = 250;
const RETRY_MS_MAX = 30_000;
/** Less than this takes no longer than the way there and back. */
const BURST_BYTES_MIN = 64 * 1024;
/** With nothing to send, the next look is taken after this, ms. */
const IDLE_MS = 10;

/** Rounds over the dirty log while the guest runs, until what is left fits the downtime limit or may be left to postcopy. */
export class Precopy {
  readonly #run: SourceRun;
  readonly #ram: RamSaver;
  readonly #converge = new AutoConverge();
  #roundStartMs = nowMs();
  #roundStartBytes: number;
  /** The last pass has left no page that was known to be dirty. */
  #idle = false;
  /** A PING is on its way that tells when all has arrived. */
  #timing = false;
  /** Why the guest could not be stopped the last time. */
  #late: Error | undefined;
  /** It is not stopped before. */
  #notBeforeMs = 0;

  constructor(run: SourceRun, ram: RamSaver) {
    this.#run = run;
    this.#ram = ram;
    this.#roundStartBytes = run.statistics.transferredBytes;
  }

  /** Resolves with the guest stopped for the switchover, or when it is to be stopped for a postcopy. */
  async run(): Promise<'switchover' | 'postcopy'> {
    try {
      return await this.#iterate();
    } finally {
      this.#run.waitsFor(undefined);
    }
  }

  async #iterate(): Promise<'switchover' | 'postcopy'> {
    for (;;) {
      if (this.#run.postcopyWanted()) return 'postcopy';
      const sent = await this.#pass();
      if (!this.#idle && !this.#fits(await this.#plan(false))) continue;
      // Little is left of what was known to be dirty: only a look at the log, and at the devices, tells how much really is.
      await this.#nextRound();
      // Asked before: a plan that was made without what is told meanwhile is no plan.
      const { settled } = this.#run.costs;
      const plan = await this.#plan(true);
      if (!this.#fits(plan) || !settled) {
        this.#run.waitsFor(this.#tooDear(plan));
        if (!sent && this.#ram.dirtyPages === 0) await pause(IDLE_MS);
        continue;
      }
      if ((await this.#devicesReady(sent ? 0 : PART_MS)) && (await this.#stop(plan))) return 'switchover';
    }
  }

  /** One PART of everything. Returns whether there was more than pages to send. */
  async #pass(): Promise<boolean> {
    const { settings, stream, links, acks, statistics } = this.#run;
    const ram = this.#ram;
    const startMs = nowMs();
    const startBytes = statistics.traffic.mainBytes + statistics.traffic.channels.bytes;
    ram.rateLimit = settings.parameter('max-bandwidth');
    await stream.beginRam('part');
    await ram.send(startMs + PART_MS);
    await stream.endRam();
    const sent = await stream.iterateOthers((iterable) => acks?.mayAnnounce(iterable) === true);
    if (sent) acks?.progress();
    await links.output.flush();
    const { mainBytes, channels } = statistics.traffic;
    const bytes = mainBytes + channels.bytes - startBytes;
    this.#idle = ram.dirtyPages === 0;
    // What is little goes into the buffers on the way, at any speed: only the destination can tell when it has it.
    if (!this.#idle || links.returnPath === undefined) statistics.busy(bytes, nowMs() - startMs);
    else if (bytes >= BURST_BYTES_MIN) await this.#timeBurst(links.returnPath, bytes, startMs);
    this.#run.check();
    return sent;
  }

  /** Only for devices: pages alone are few when they fit the downtime limit. */
  async #timeBurst(returnPath: ReturnPathReader, bytes: number, startMs: number): Promise<void> {
    const { machine, statistics, stream, links } = this.#run;
    if (this.#timing || machine.iterables.length === 0) return;
    this.#timing = true;
    returnPath.pong(PING_BURST).then(
      () => {
        this.#timing = false;
        statistics.arrived(bytes, nowMs() - startMs);
      },
      () => {},
    );
    await stream.ping(PING_BURST);
    await links.output.flush();
  }

  /** Whether the destination's devices are ready, or there are none to wait for. */
  async #devicesReady(waitMs: number): Promise<boolean> {
    const { acks, machine, statistics, waitsFor } = this.#run;
    // A guest that stands still already gains nothing by waiting.
    if (acks === undefined || machine.runState !== 'running') return true;
    waitsFor(acks.state === 'awaited' ? acks.waitingFor : undefined);
    const given = await acks.given(waitMs);
    if (given && statistics.switchoverAck === 'awaited') statistics.forgetBandwidth();
    statistics.switchoverAck = acks.state;
    return given;
  }

  /** Stops the guest, with what the limit leaves for that. If devices are late it runs on, and is left alone for a while. */
  async #stop(plan: DowntimeParts): Promise<boolean> {
    this.#run.waitsFor(this.#late && `the next try to stop the guest: ${explain(this.#late)}`);
    if (nowMs() < this.#notBeforeMs) {
      await pause(IDLE_MS);
      return false;
    }
    const late = await stopGuest(this.#run, this.#limitMs - plan.moveMs - plan.loadMs);
    if (late === undefined) return true;
    const { missedStops } = this.#run.statistics;
    this.#notBeforeMs = nowMs() + Math.min(RETRY_MS * 2 ** (missedStops - 1), RETRY_MS_MAX);
    this.#late = late;
    return false;
  }

  /** What no patience helps against: with these devices the limit cannot be kept, however little is left to send. */
  #tooDear({ stopMs, loadMs }: DowntimeParts): string | undefined {
    const neededMs = Math.ceil(stopMs + loadMs);
    return neededMs > this.#limitMs
      ? `devices that need ${neededMs} ms to stop and to be loaded: more than downtime-limit`
      : undefined;
  }

  async #nextRound(): Promise<void> {
    const { machine, settings, statistics, stream, costs } = this.#run;
    await stream.endRound();
    await costs.refresh();
    await costs.ask(stream);
    const dirtied = await this.#ram.sync();
    statistics.progress();
    const now = nowMs();
    statistics.dirtyPagesPerSecond = (dirtied * 1000) / Math.max(now - this.#roundStartMs, 1);
    if (settings.capability('auto-converge')) {
      this.#throttle(dirtied * machine.targetPageSize, statistics.transferredBytes - this.#roundStartBytes);
    }
    this.#roundStartMs = now;
    this.#roundStartBytes = statistics.transferredBytes;
    statistics.syncCount++;
    this.#run.passed();
    this.#ram.allowXbzrle(true);
  }

  /** What the downtime would be, with what is known to be left, or (`exact`) asked for. */
  async #plan(exact: boolean): Promise<DowntimeParts> {
    const { machine, settings, statistics, stream, costs } = this.#run;
    const others = await stream.pendingOthers(exact);
    const plan = expectedDowntime({
      bytes: this.#ram.dirtyPages * machine.targetPageSize + others.all,
      deviceBytes: others.most,
      bandwidth: statistics.cautiousBandwidth(this.#idle),
      availSwitchoverBandwidth: settings.parameter('avail-switchover-bandwidth'),
      cost: costs.known,
    });
    const ms = sumOf(plan);
    statistics.plannedDowntimeMs = Number.isFinite(ms) ? ms : undefined;
    return plan;
  }

  #fits(plan: DowntimeParts): boolean {
    return sumOf(plan) <= this.#limitMs;
  }

  get #limitMs(): number {
    return this.#run.settings.parameter('downtime-limit');
  }

  #throttle(dirtiedBytes: number, sentBytes: number): void {
    const { machine, settings, statistics } = this.#run;
    const percentage = this.#converge.roundEnded(dirtiedBytes, sentBytes, {
      initial: settings.parameter('cpu-throttle-initial'),
      increment: settings.parameter('cpu-throttle-increment'),
      max: settings.parameter('max-cpu-throttle'),
      tailslow: settings.parameter('cpu-throttle-tailslow'),
      triggerThreshold: settings.parameter('throttle-trigger-threshold'),
    });
    statistics.throttlePercentage = percentage;
    machine.throttle(percentage);
  }
}
