import { nowMs } from '../../base/index.ts';
import { AutoConverge, switchoverThreshold } from '../convergence.ts';
import type { RamSaver } from './ram-save.ts';
import type { SourceRun } from './run.ts';

/** Time for page records in one PART section, ms (ram_save_iterate: MAX_WAIT 50). */
const PART_MS = 50;

/** Rounds over the dirty log while the guest runs, until what is left fits the downtime limit or may be left to postcopy. */
export class Precopy {
  readonly #run: SourceRun;
  readonly #ram: RamSaver;
  readonly #converge = new AutoConverge();
  #roundStartMs = nowMs();
  #roundStartBytes: number;

  constructor(run: SourceRun, ram: RamSaver) {
    this.#run = run;
    this.#ram = ram;
    this.#roundStartBytes = run.statistics.transferredBytes;
  }

  /** Resolves when the guest is to be stopped, with the way to go on. */
  async run(): Promise<'switchover' | 'postcopy'> {
    try {
      return await this.#iterate();
    } finally {
      this.#run.waitsFor(undefined);
    }
  }

  async #iterate(): Promise<'switchover' | 'postcopy'> {
    const { settings, stream, links, acks } = this.#run;
    const ram = this.#ram;
    for (;;) {
      if (this.#run.postcopyWanted()) return 'postcopy';
      ram.rateLimit = settings.parameter('max-bandwidth');
      await stream.beginRam('part');
      await ram.send(nowMs() + PART_MS);
      await stream.endRam();
      const sent = await stream.iterateOthers((iterable) => acks?.mayAnnounce(iterable) === true);
      if (sent) acks?.progress();
      await links.output.flush();
      this.#run.check();
      if ((await this.#pending(false)) > this.#threshold()) {
        if (ram.dirtyPages === 0) await this.#nextRound();
        continue;
      }
      // Little is left of what was known to be dirty: only a look at the log tells how much really is.
      await this.#nextRound();
      if ((await this.#pending(true)) > this.#threshold()) continue;
      if (await this.#devicesReady(sent ? 0 : PART_MS)) return 'switchover';
    }
  }

  /** Whether the destination's devices are ready, or there are none to wait for. */
  async #devicesReady(waitMs: number): Promise<boolean> {
    const { acks, machine, statistics, waitsFor } = this.#run;
    // A guest that stands still already gains nothing by waiting.
    if (acks === undefined || machine.runState !== 'running') return true;
    if (acks.state === 'awaited') waitsFor(acks.waitingFor);
    const given = await acks.given(waitMs);
    statistics.switchoverAck = acks.state;
    if (given) waitsFor(undefined);
    return given;
  }

  async #nextRound(): Promise<void> {
    const { machine, settings, statistics, stream } = this.#run;
    await stream.endRound();
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

  /** Bytes that are known to be left. */
  async #pending(exact: boolean): Promise<number> {
    const { machine, stream } = this.#run;
    return this.#ram.dirtyPages * machine.targetPageSize + (await stream.pendingOthers(exact));
  }

  #threshold(): number {
    const { settings, statistics } = this.#run;
    return switchoverThreshold({
      bandwidth: statistics.cautiousBandwidth,
      availSwitchoverBandwidth: settings.parameter('avail-switchover-bandwidth'),
      downtimeLimitMs: settings.parameter('downtime-limit'),
    });
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
