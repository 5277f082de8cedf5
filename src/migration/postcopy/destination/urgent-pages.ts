import { asError } from '../../../base/index.ts';
import type { SettingsView } from '../../../settings/index.ts';
import type { Channel } from '../../../transport/index.ts';
import { type AnnouncedBlock, PREEMPT_INITIAL_BYTES } from '../../../wire/index.ts';
import type { SourceListener } from '../../destination/arrivals.ts';
import { MigrationError } from '../../errors.ts';
import type { LatePages } from './late-pages.ts';
import type { SourceConnection } from './source-connection.ts';
import { UrgentReceiver } from './urgent-receiver.ts';

export interface UrgentPagesParts {
  readonly pages: LatePages;
  readonly blocks: readonly AnnouncedBlock[];
  readonly targetPageSize: number;
  /** Preempt channels of a connection; 0: none (capability postcopy-preempt is off). */
  readonly channels: number;
  readonly settings: SettingsView;
  /** The machine gets time for what it was given. */
  readonly drain: () => Promise<void>;
}

export interface UrgentTotals {
  readonly bytes: number;
  readonly normalPages: number;
  readonly zeroPages: number;
}

/** Requested pages, which come over channels of their own, through as many connections as it takes. */
export class UrgentPages {
  readonly #parts: UrgentPagesParts;
  readonly #receivers: UrgentReceiver[] = [];
  #awaitsChannels = false;

  constructor(parts: UrgentPagesParts) {
    this.#parts = parts;
  }

  /** Connections have such channels, whether they are there yet or not. */
  get hasChannels(): boolean {
    return this.#parts.channels > 0;
  }

  get awaitsChannels(): boolean {
    return this.#awaitsChannels;
  }

  /** What has come so far, over all connections. */
  get totals(): UrgentTotals {
    const totals = { bytes: 0, normalPages: 0, zeroPages: 0 };
    for (const { channel, counts } of this.#receivers) {
      totals.bytes += channel.counters.bytesRead;
      totals.normalPages += counts.normal;
      totals.zeroPages += counts.zero;
    }
    return totals;
  }

  /**
   * Resolves when all channels of the connection are there and read, which must be before anything is asked for. Nobody else is awaited at `listener`
   * then. Throws as `awaitPreempt`.
   */
  async open(connection: SourceConnection, listener: SourceListener, signal: AbortSignal): Promise<void> {
    const { channels, settings, pages } = this.#parts;
    try {
      if (channels === 0) return;
      this.#awaitsChannels = true;
      for (const channel of await connection.awaitPreempt(listener, channels, settings, signal)) {
        connection.read(this.#receive(channel)).catch((error: unknown) => {
          // When all pages are here it may end as it likes.
          if (pages.received.missing > 0) connection.lose(asError(error));
        });
      }
    } finally {
      this.#awaitsChannels = false;
      listener.close();
    }
  }

  async #receive(channel: Channel): Promise<void> {
    const { pages, blocks, targetPageSize, channels, drain } = this.#parts;
    const sink = pages.sink(channel.label);
    sink.listen();
    const initialBytes = channels > 1 ? PREEMPT_INITIAL_BYTES : 0;
    const receiver = new UrgentReceiver(channel, { pageSize: targetPageSize, blocks, sink, drain, initialBytes });
    this.#receivers.push(receiver);
    if ((await receiver.run()) === 'eos') return;
    const what = `${channel.label}: the source closed the channel before all pages had come`;
    throw new MigrationError({ code: 'MIGRATION_PEER_GONE', phase: 'postcopy' }, what);
  }
}
