import { nowMs, WakeUp } from '../../base/index.ts';
import type { SourceIterable } from '../../machine/index.ts';
import { MigrationError } from '../errors.ts';

export interface SwitchoverAcksOptions {
  /** Property switchover-ack-legacy of the machine type. */
  readonly legacy: boolean;
  /** Those that may have initial data. */
  readonly iterables: readonly SourceIterable[];
  /** Who the destination is; undefined: it has not answered yet. What it has to say before has come when it has. */
  readonly peer: () => 'vmferry' | 'other' | undefined;
  /** After a handshake: whether the device has initial data at both ends. */
  readonly agreed?: ((iterable: SourceIterable) => boolean) | undefined;
  /** x-switchover-ack-timeout, ms. */
  readonly timeoutMs: () => number;
}

/**
 * Capability switchover-ack: the guest is not stopped before the destination has loaded the initial data of the devices (qemu-wire 7.1).
 *
 *     machine types up to 11.0   the destination counts its devices and says ACK once; at the very start if it waits for none
 *     from 11.1                  it says ACK for every INIT_DATA_SENT, and this side counts
 *
 * Devices agree one by one. One without initial data at this side says INIT_DATA_SENT all the same, and at once, where the destination is
 * vmferry and may have counted it; a QEMU would not take that. A destination that waits for none is not told: there a device without initial data
 * would not take it. If no device has any at this side, nobody is waited for.
 *
 * After a handshake both ends know which devices have initial data at both: only these are announced, counted and waited for.
 *
 * A destination that is silent for too long ends the migration if it is one that knows what is expected of it (vmferry); the guest then goes on
 * here. Of any other nobody knows whether it has the capability at all: then the switchover goes on without, as it would with the capability off.
 */
export class SwitchoverAcks {
  readonly #options: SwitchoverAcksOptions;
  readonly #news = new WakeUp();
  #received = 0;
  /** When something last went on: initial data was sent, or an ACK came. */
  #progressMs = nowMs();
  #missed = false;

  constructor(options: SwitchoverAcksOptions) {
    this.#options = options;
  }

  /** An ACK has come. Throws MIGRATION_SWITCHOVER_ACK for one that nobody asked for; the older dialect lets such pass, as QEMU does. */
  acked(): void {
    const announced = this.#announced;
    if (!this.#options.legacy && this.#received >= announced) {
      throw new MigrationError(
        { code: 'MIGRATION_SWITCHOVER_ACK', asked: announced },
        `the destination says that initial data is loaded (SWITCHOVER_ACK) more often than it was sent, which is ${announced} times`,
      );
    }
    this.#received++;
    this.progress();
    this.#news.wake();
  }

  /** Whether the device may say INIT_DATA_SENT if its initial data is out. */
  mayAnnounce(iterable: SourceIterable): boolean {
    const { initialData } = iterable;
    const peer = this.#options.peer();
    if (initialData === undefined || peer === undefined || !this.#isAgreed(iterable)) return false;
    if (!this.#options.legacy) return initialData.own;
    return this.#received === 0 && initialData.announced === 0 && (initialData.own || peer === 'vmferry');
  }

  /** Initial data has been sent. */
  progress(): void {
    this.#progressMs = nowMs();
  }

  get state(): 'none' | 'awaited' | 'given' | 'missed' {
    const own = this.#own;
    if (own.length === 0) return 'none';
    if (this.#missed) return 'missed';
    const given = this.#options.legacy
      ? this.#received > 0
      : own.every(({ initialData }) => initialData?.isDue === false) && this.#received === this.#announced;
    return given ? 'given' : 'awaited';
  }

  /** Initial data of these is still to be sent, or loaded. */
  get waitingFor(): string {
    const due = this.#own.filter(({ initialData }) => initialData?.isDue);
    const names = (due.length > 0 ? due : this.#own).map(({ idstr }) => idstr).join(', ');
    return due.length > 0 ? `initial data of ${names} to be sent` : `the destination to load initial data of ${names}`;
  }

  /** Whether the guest may be stopped as far as this is concerned. If not, waits for news, `ms` at most. Throws MIGRATION_DEADLINE. */
  async given(ms: number): Promise<boolean> {
    const before = this.state;
    if (before !== 'awaited') return true;
    const deadlineMs = this.#options.timeoutMs();
    const leftMs = this.#progressMs + deadlineMs - nowMs();
    if (leftMs > 0) {
      await this.#news.next(Math.min(ms, leftMs));
      return this.state === 'given';
    }
    if (this.#options.peer() === 'vmferry') {
      const { waitingFor } = this;
      const fault = { code: 'MIGRATION_DEADLINE', waitingFor, deadlineMs } as const;
      throw new MigrationError(fault, `waited ${deadlineMs} ms for ${waitingFor} (switchover-ack)`);
    }
    this.#missed = true;
    return true;
  }

  get #own(): readonly SourceIterable[] {
    return this.#options.iterables.filter((one) => one.initialData?.own && this.#isAgreed(one));
  }

  #isAgreed(iterable: SourceIterable): boolean {
    return this.#options.agreed?.(iterable) !== false;
  }

  get #announced(): number {
    return this.#options.iterables.reduce((sum, { initialData }) => sum + (initialData?.announced ?? 0), 0);
  }
}
