import { nowMs } from '../../base/index.ts';
import type { SourceMachine } from '../../machine/index.ts';
import type { SettingsView } from '../../settings/index.ts';
import type { ChannelOutput } from '../../transport/index.ts';
import { AutoConverge, switchoverThreshold } from '../convergence.ts';
import type { Statistics } from '../statistics.ts';
import type { RamSaver } from './ram-save.ts';
import type { StreamWriter } from './stream-writer.ts';

/** Time for page records in one PART section, ms (ram_save_iterate: MAX_WAIT 50). */
const PART_MS = 50;

export interface PrecopyParts {
  readonly machine: SourceMachine;
  /** Limits are read live. */
  readonly settings: SettingsView;
  readonly statistics: Statistics;
  readonly stream: StreamWriter;
  readonly output: ChannelOutput;
  readonly ram: RamSaver;
  /** A new round has begun. */
  readonly pass: (pass: number) => void;
  /** Throws if the migration has failed or was cancelled. */
  readonly check: () => void;
}

/** Rounds over the dirty log while the guest runs, until what is left fits the downtime limit. */
export class Precopy {
  readonly #parts: PrecopyParts;
  readonly #converge = new AutoConverge();
  #roundStartMs = nowMs();
  #roundStartBytes: number;

  constructor(parts: PrecopyParts) {
    this.#parts = parts;
    this.#roundStartBytes = parts.output.offset;
  }

  async run(): Promise<void> {
    const { settings, stream, output, ram, check } = this.#parts;
    for (;;) {
      output.rateLimit = settings.parameter('max-bandwidth');
      await stream.beginRam('part');
      await ram.send(nowMs() + PART_MS);
      await stream.endRam();
      await stream.iterateOthers();
      await output.flush();
      check();
      if ((await this.#pending()) > this.#threshold()) {
        if (ram.dirtyPages === 0) this.#nextRound();
        continue;
      }
      // Little is left of what was known to be dirty: only a look at the log tells how much really is.
      this.#nextRound();
      if ((await this.#pending()) <= this.#threshold()) return;
    }
  }

  #nextRound(): void {
    const { machine, settings, statistics, output, ram, pass } = this.#parts;
    const dirtied = ram.sync();
    const now = nowMs();
    statistics.dirtyPagesPerSecond = (dirtied * 1000) / Math.max(now - this.#roundStartMs, 1);
    if (settings.capability('auto-converge')) {
      this.#throttle(dirtied * machine.targetPageSize, output.offset - this.#roundStartBytes);
    }
    this.#roundStartMs = now;
    this.#roundStartBytes = output.offset;
    statistics.syncCount++;
    pass(statistics.syncCount);
    ram.allowXbzrle(true);
  }

  /** Bytes that are known to be left. */
  async #pending(): Promise<number> {
    const { machine, ram, stream } = this.#parts;
    return ram.dirtyPages * machine.targetPageSize + (await stream.pendingOthers());
  }

  #threshold(): number {
    const { settings, statistics } = this.#parts;
    return switchoverThreshold({
      bandwidth: statistics.cautiousBandwidth,
      availSwitchoverBandwidth: settings.parameter('avail-switchover-bandwidth'),
      downtimeLimitMs: settings.parameter('downtime-limit'),
    });
  }

  #throttle(dirtiedBytes: number, sentBytes: number): void {
    const { machine, settings, statistics } = this.#parts;
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
