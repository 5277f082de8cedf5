/**
 * Decisions about convergence: numbers in, verdict out. Facts: migration/migration.c (migration_update_counters: threshold) and
 * migration/ram.c (migration_trigger_throttle, mig_throttle_guest_down).
 */
import type { SwitchoverCost } from '../machine/index.ts';

/** What is left, and what it meets on its way. */
export interface SwitchoverPlan {
  /** Still to be sent, bytes; what the device with the most has of it. */
  readonly bytes: number;
  readonly deviceBytes: number;
  /** Measured, bytes a ms. */
  readonly bandwidth: number;
  /** avail-switchover-bandwidth, bytes a second; 0 = use the measured one. */
  readonly availSwitchoverBandwidth: number;
  readonly cost: SwitchoverCost;
}

export interface DowntimeParts {
  readonly stopMs: number;
  /** Bytes on their way, and into the devices meanwhile. */
  readonly moveMs: number;
  readonly loadMs: number;
}

/**
 * How long the guest would stand still if it were stopped now. For a machine without devices that is what QEMU reckons with: bytes by bandwidth; the
 * rest is for devices. State is loaded while it arrives, so that the slower of the two counts.
 */
export function expectedDowntime(plan: SwitchoverPlan): DowntimeParts {
  const { bytes, deviceBytes, availSwitchoverBandwidth, cost } = plan;
  const perMs = availSwitchoverBandwidth > 0 ? availSwitchoverBandwidth / 1000 : plan.bandwidth;
  const through = (amount: number, rate: number) => (amount === 0 ? 0 : amount / rate);
  const moveMs = Math.max(through(bytes, perMs), through(deviceBytes, cost.load.bytesPerMs));
  return { stopMs: cost.stopMs, moveMs, loadMs: cost.load.ms };
}

export function sumOf({ stopMs, moveMs, loadMs }: DowntimeParts): number {
  return stopMs + moveMs + loadMs;
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
