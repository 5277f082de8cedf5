/** A postcopy between two machines of this process over loopback, through proxies that can break, and connections that are made anew. */
import assert from 'node:assert/strict';
import type { DestinationMachine, SourceMachine } from '../../src/machine/index.ts';
import {
  IncomingMigration,
  type IncomingResult,
  type MigrationStatus,
  OutgoingMigration,
  type OutgoingResult,
  routeTo,
} from '../../src/migration/index.ts';
import type { Settings } from '../../src/settings/index.ts';
import { type Address, listen } from '../../src/transport/index.ts';
import { assertCompleted } from './completed.ts';
import { type CutPlan, type CutProxy, cutProxy } from './cut-proxy.ts';
import { testSettings } from './move.ts';
import type { TlsPair } from './tls-folders.ts';

export const LOOPBACK: Address = { kind: 'tcp', host: '127.0.0.1', port: 0 };

/** The states one side has been in, and who waits for the next. */
export class States {
  readonly seen: MigrationStatus[] = [];
  readonly #waiters = new Map<MigrationStatus, (() => void)[]>();

  readonly note = (status: MigrationStatus): void => {
    this.seen.push(status);
    const waiters = this.#waiters.get(status) ?? [];
    this.#waiters.delete(status);
    for (const resolve of waiters) resolve();
  };

  /** Resolves when the side comes into `status` (again). */
  next(status: MigrationStatus): Promise<void> {
    return new Promise((resolve) => {
      this.#waiters.set(status, [...(this.#waiters.get(status) ?? []), resolve]);
    });
  }
}

export interface PostcopyMoveOptions {
  readonly source: SourceMachine;
  readonly destination: DestinationMachine;
  readonly preempt?: boolean;
  /** Both shake hands, and this is what each was given, if anything. Absent: no handshake. */
  readonly preemptChannels?: { readonly source?: number; readonly destination?: number };
  /** Of the background, bytes/s; 0: as fast as it goes. */
  readonly bandwidth?: number;
  readonly change?: (settings: Settings) => void;
  readonly cut?: CutPlan;
  readonly tls?: TlsPair;
}

export class PostcopyMove {
  readonly outgoing: OutgoingMigration;
  readonly incoming: IncomingMigration;
  readonly there = new States();
  readonly here = new States();
  proxy: CutProxy;
  readonly #tls: TlsPair | undefined;
  #end: () => void = () => {};
  readonly #over = new Promise<void>((resolve) => {
    this.#end = resolve;
  });

  private constructor(options: PostcopyMoveOptions, proxy: CutProxy, listener: Awaited<ReturnType<typeof listen>>) {
    const { preemptChannels } = options;
    const settingsOf = (end: 'source' | 'destination') =>
      testSettings((settings) => {
        settings.setCapabilities([
          { capability: 'postcopy-ram', state: true },
          { capability: 'postcopy-preempt', state: options.preempt ?? false },
          { capability: 'postcopy-blocktime', state: true },
          { capability: 'x-vmferry-handshake', state: preemptChannels !== undefined },
        ]);
        const most = preemptChannels?.[end];
        if (most !== undefined) settings.setParameters({ 'x-postcopy-preempt-channels': most });
        settings.setParameters({ 'max-postcopy-bandwidth': options.bandwidth ?? 0 });
        options.change?.(settings);
      });
    this.proxy = proxy;
    this.#tls = options.tls;
    this.outgoing = new OutgoingMigration({
      machine: options.source,
      settings: settingsOf('source'),
      ...routeTo(proxy.address, { tls: options.tls?.client }),
      secured: options.tls !== undefined,
      returnPath: () => true,
      observer: { status: this.here.note },
    });
    this.incoming = new IncomingMigration({
      machine: options.destination,
      settings: settingsOf('destination'),
      takesAnyMachine: options.destination.targetPageSize === 4096 && !('runState' in options.destination),
      listener,
      observer: { status: this.there.note },
    });
  }

  static async between(options: PostcopyMoveOptions): Promise<PostcopyMove> {
    const listener = await listen(LOOPBACK, { tls: options.tls?.server });
    return new PostcopyMove(options, await cutProxy(tcp(listener.address), options.cut), listener);
  }

  /** Runs both; resolves when both have ended, in whatever way. */
  async run(): Promise<{ readonly source: OutgoingResult; readonly destination: IncomingResult }> {
    try {
      const [source, destination] = await Promise.all([this.outgoing.run(), this.incoming.run()]);
      return { source, destination };
    } finally {
      this.#end();
      await this.proxy.close();
    }
  }

  /** `promise`, which must come before the end of the migration. */
  during<T>(promise: Promise<T>): Promise<T> {
    const over = this.#over.then(() => {
      const { error, status } = { error: this.outgoing.info()['error-desc'], status: this.outgoing.status };
      throw new Error(`the migration is over: ${status} ${error ?? ''}`);
    });
    return Promise.race([promise, over]);
  }

  /** Both come into `status` (again), before the end. */
  both(status: MigrationStatus): Promise<unknown> {
    return this.during(Promise.all([this.here.next(status), this.there.next(status)]));
  }

  async completed(): Promise<void> {
    const { source, destination } = await this.run();
    assertCompleted(source, destination);
    assert.equal(destination.confirmed, true);
  }

  /** Resolves when so many more bytes have gone to the destination over the connections that there are. */
  sent(byteCount: number): Promise<void> {
    return this.during(passedOver(this.proxy, byteCount));
  }

  /** All connections break, both pause, and go on over new ones. */
  async breakAndRecover(how: 'end' | 'reset'): Promise<void> {
    const paused = this.both('postcopy-paused');
    this.proxy.sever(how);
    await paused;
    const again = this.both('postcopy-active');
    await this.reconnect();
    await again;
  }

  /** Both are paused: another connection, through a proxy of its own. */
  async reconnect(cut?: CutPlan): Promise<void> {
    const before = this.proxy;
    const listener = await listen(LOOPBACK, { tls: this.#tls?.server });
    this.incoming.postcopy.recover(listener);
    this.proxy = await cutProxy(tcp(listener.address), cut);
    await before.close();
    this.outgoing.postcopy.resume(routeTo(this.proxy.address, { tls: this.#tls?.client }));
  }
}

/** Resolves when so many more bytes have come to the proxy on their way to its target. */
export function passedOver(proxy: CutProxy, byteCount: number): Promise<void> {
  return new Promise((resolve) => {
    let left = byteCount;
    proxy.onBytes = (direction, bytes) => {
      if (direction === 'toTarget') left -= bytes.length;
      if (left <= 0) resolve();
    };
  });
}

/** Counts, from now on, what comes to the proxy on its way to its target, by connection. */
export function passedTo(proxy: CutProxy): (connection: number) => number {
  const counts = new Map<number, number>();
  proxy.onBytes = (direction, bytes, connection) => {
    if (direction === 'toTarget') counts.set(connection, (counts.get(connection) ?? 0) + bytes.length);
  };
  return (connection) => counts.get(connection) ?? 0;
}

export function tcp(address: Address): Address & { kind: 'tcp' } {
  assert(address.kind === 'tcp');
  return address;
}
