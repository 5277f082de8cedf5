/**
 * Decisions about convergence: numbers in, verdict out. Facts: migration/migration.c (migration_update_counters: threshold) and
 * migration/ram.c (migration_trigger_throttle, mig_throttle_guest_down).
 */

/** Bytes that may be pending when the guest is stopped, so that they move within the downtime limit. */
export function switchoverThreshold(options: {
  /** Measured, bytes a ms. */
  readonly bandwidth: number;
  /** avail-switchover-bandwidth, bytes a second; 0 = use the measured one. */
  readonly availSwitchoverBandwidth: number;
  /** downtime-limit, ms. */
  readonly downtimeLimitMs: number;
}): number {
  const perMs = options.availSwitchoverBandwidth > 0 ? options.availSwitchoverBandwidth / 1000 : options.bandwidth;
  return perMs * options.downtimeLimitMs;
}

export interface ThrottleSettings {
  readonly initial: number;
  readonly increment: number;
  readonly max: number;
  readonly tailslow: boolean;
  /** throttle-trigger-threshold: dirtied bytes above this per cent of the bytes sent count as too many. */
  readonly triggerThreshold: number;
}

/** Auto-converge: watches rounds, answers with the throttle percentage for the vCPUs. */
export class AutoConverge {
  #roundsTooDirty = 0;
  percentage = 0;

  /** One round is over: `dirtiedBytes` were dirtied in it while `sentBytes` were sent. Returns the new percentage. */
  roundEnded(dirtiedBytes: number, sentBytes: number, settings: ThrottleSettings): number {
    const trigger = (sentBytes * settings.triggerThreshold) / 100;
    if (dirtiedBytes <= trigger) return this.percentage;
    if (++this.#roundsTooDirty < 2) return this.percentage;
    this.#roundsTooDirty = 0;
    this.percentage = Math.min(settings.max, Math.ceil(this.#next(dirtiedBytes, trigger, settings)));
    return this.percentage;
  }

  #next(dirtiedBytes: number, trigger: number, settings: ThrottleSettings): number {
    if (this.percentage === 0) return settings.initial;
    if (!settings.tailslow) return this.percentage + settings.increment;
    // Near the goal only as much as is needed: the share of the running time that must go for the dirty rate to meet the trigger.
    const running = 100 - this.percentage;
    const ideal = (running * trigger) / dirtiedBytes;
    return this.percentage + Math.min(running - ideal, settings.increment);
  }
}
