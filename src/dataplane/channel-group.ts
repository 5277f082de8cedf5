/** Channels that start, fail and end together: the first failure ends all of them, and everybody who waits hears it. */
import { FerryError } from '../base/index.ts';
import type { SharedRam } from '../machine/index.ts';
import type { ChannelCounters, ChannelReports, ChannelThread } from './channel-thread.ts';
import { type ChannelError, cancelled, channelError, channelLabel, dataplaneError } from './errors.ts';
import type { FromChannel } from './messages.ts';
import { HeldRam } from './pages/hold-ram.ts';

interface Waiter {
  readonly met: () => boolean;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** Of all channels. */
export type ChannelTotals = ChannelCounters;

export interface ChannelInfo {
  readonly name: string;
  /** The kernel's, as query-migrationthreads reports it. */
  readonly threadId: number;
}

export class ChannelGroup<T extends ChannelThread = ChannelThread> {
  readonly threads: T[] = [];
  readonly #held = new Map<SharedRam, HeldRam>();
  readonly #waiters = new Set<Waiter>();
  readonly #failed: (error: ChannelError) => void;
  /** Wakes threads that wait for something else than their words. */
  readonly #wake: () => void;
  readonly #ended = new Set<number>();
  #started = 0;
  /** From when on a failure is reported and not thrown by `open`. */
  #running = false;
  #failure: ChannelError | undefined;

  /**
   * `failed` is called once, with the first failure of running channels that is not our own `cancel`. `wake`: when all shall end, wakes threads
   * that wait elsewhere than at their connection and their words.
   */
  constructor(failed: (error: ChannelError) => void, wake: () => void = () => {}) {
    this.#failed = failed;
    this.#wake = wake;
  }

  /** `ram` as threads may use it until `close`, whatever its machine does. Throws NATIVE_UNAVAILABLE, NATIVE_CALL. */
  hold(ram: SharedRam): SharedRam {
    const held = this.#held.get(ram) ?? new HeldRam(ram);
    this.#held.set(ram, held);
    return held.ram;
  }

  /** What a channel's thread reports goes here. */
  reports(channel: number): ChannelReports {
    return {
      said: (message) => this.#said(channel, message),
      gone: (error) => {
        this.#ended.add(channel);
        if (error !== undefined) {
          const fault = { code: 'DATAPLANE_THREAD', channel } as const;
          this.fail(dataplaneError(fault, `${channelLabel(channel)}: its thread is gone`, error));
        }
        this.settle();
      },
    };
  }

  get failure(): ChannelError | undefined {
    return this.#failure;
  }

  get totals(): ChannelTotals {
    const sum = (counter: keyof ChannelCounters) =>
      this.threads.reduce((total, { counters }) => total + counters[counter], 0);
    return {
      bytes: sum('bytes'),
      packets: sum('packets'),
      normalPages: sum('normalPages'),
      zeroPages: sum('zeroPages'),
      stateBytes: sum('stateBytes'),
    };
  }

  /** Of those that live. */
  get info(): ChannelInfo[] {
    return this.threads.filter((thread) => thread.isAlive).map(({ name, threadId }) => ({ name, threadId }));
  }

  /** The peer, or our order, has ended it. */
  hasEnded(channel: number): boolean {
    return this.#ended.has(channel);
  }

  /**
   * Starts `count` threads; resolves when each has said its first word. `spawn` starts one; `unused` is told of a channel that is not started any
   * more, because another one failed to. Throws what has failed; nothing is left open then.
   */
  async open(
    count: number,
    method: string,
    spawn: (channel: number) => T,
    unused: (channel: number) => void,
  ): Promise<void> {
    for (let channel = 0; channel < count; channel++) {
      if (this.#failure !== undefined) {
        unused(channel);
        continue;
      }
      try {
        this.threads.push(spawn(channel));
      } catch (thrown) {
        this.fail(channelError(thrown, { channel, offset: 0 }, method));
      }
    }
    try {
      await this.wait(() => this.#started === this.threads.length);
      this.#running = true;
    } catch (thrown) {
      await this.joined();
      throw thrown;
    }
  }

  /** Resolves as soon as `met`, which is asked again whenever a thread reports. Rejects with the failure of the group. */
  wait(met: () => boolean): Promise<void> {
    const already = this.#failure === undefined && met();
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (already) return Promise.resolve();
    return new Promise((resolve, reject) => this.#waiters.add({ met, resolve, reject }));
  }

  cancel(reason?: unknown): void {
    if (this.#failure === undefined) this.#end(cancelled(reason));
  }

  fail(error: ChannelError): void {
    if (this.#failure !== undefined) return;
    this.#end(error);
    if (this.#running) this.#failed(error);
  }

  /** All threads are joined and all descriptors closed. Never throws. */
  async joined(): Promise<void> {
    await Promise.all(this.threads.map((thread) => thread.joined));
    this.close();
  }

  /** The threads are joined: closes what they used. Idempotent. */
  close(): void {
    for (const thread of this.threads) thread.close();
    for (const held of this.#held.values()) held.release();
  }

  #end(error: ChannelError): void {
    this.#failure = error;
    for (const thread of this.threads) thread.stopNow();
    this.#wake();
    void this.joined();
    this.settle();
  }

  #said(channel: number, message: FromChannel): void {
    if (message.kind === 'started') this.#started++;
    if (message.kind === 'ended') this.#ended.add(channel);
    if (message.kind === 'failed') {
      const cause = message.cause === undefined ? undefined : new Error(message.cause);
      this.fail(new FerryError(message.fault, message.message, cause));
    }
    this.settle();
  }

  /** Asks all who wait again. */
  settle(): void {
    for (const waiter of this.#waiters) {
      if (this.#failure === undefined && !waiter.met()) continue;
      this.#waiters.delete(waiter);
      if (this.#failure !== undefined) waiter.reject(this.#failure);
      else waiter.resolve();
    }
  }
}
