import { asError } from '../../../base/index.ts';
import type { DestinationMachine, IncomingRam } from '../../../machine/index.ts';
import type { SettingsView } from '../../../settings/index.ts';
import type { AnnouncedBlock, Command, RamCounts, StreamEvent } from '../../../wire/index.ts';
import { inTime } from '../../deadline.ts';
import type { SourceListener } from '../../destination/arrivals.ts';
import type { IncomingStream } from '../../destination/incoming-stream.ts';
import { MigrationError, unsupported, wrongState } from '../../errors.ts';
import type { MigrationStatus } from '../../host.ts';
import type { BlocktimeFigures } from './blocktime.ts';
import type { HostPageSink } from './host-page-sink.ts';
import { type AdvisedPages, LatePages } from './late-pages.ts';
import { type MainReaderParts, readMain } from './main-reader.ts';
import { Reconnection } from './reconnection.ts';
import { SourceConnection } from './source-connection.ts';
import { UrgentPages, type UrgentTotals } from './urgent-pages.ts';

const ALL_HERE =
  'the guest is here with all of its memory: there is nothing to recover. A source that is paused has only not heard of it: it can be ended (quit)';

/** What the destination of a postcopy must know of the conductor it works for. */
export interface PostcopyDestinationParts {
  readonly machine: DestinationMachine;
  readonly settings: SettingsView;
  readonly stream: IncomingStream;
  /** Further connections of the source. */
  readonly listener: SourceListener;
  /** With postcopy-preempt: how many such channels both ends have agreed on. */
  readonly preemptChannels: number;
  readonly signal: AbortSignal;
  readonly status: () => MigrationStatus;
  readonly move: (status: MigrationStatus) => void;
  readonly waitsFor: (what: string | undefined) => void;
  /** Device sections and iterables of a package, in order. */
  readonly loadDevice: (event: StreamEvent) => Promise<void>;
  /** The machine takes over what has come, and runs: from now on it is never discarded. */
  readonly start: () => Promise<void>;
  /** Pages have come on the main channel. */
  readonly count: (pages: Readonly<RamCounts>) => void;
}

/** The RAM of a stream in which POSTCOPY_ADVISE has come. */
export interface AdvisedRam {
  readonly ram: IncomingRam;
  readonly blocks: readonly AnnouncedBlock[];
  readonly advised: AdvisedPages;
}

/**
 * The destination of a postcopy, from the block list on:
 *
 *   discard   what is not here in its last version
 *   run       the package: LISTEN, devices, RUN; beside it and behind it pages, until all are here. From RUN on a broken connection pauses,
 *             and the stream goes on over another one
 *
 * The first failure before RUN ends it: the guest is the source's, and two would run if it ran here as well.
 */
export class PostcopyDestination {
  readonly #parts: PostcopyDestinationParts;
  readonly #pages: LatePages;
  /** Of the main channel. */
  readonly sink: HostPageSink;
  readonly #reconnection: Reconnection;
  readonly #main: MainReaderParts;
  /** That there is, or was last. */
  #connection: SourceConnection;
  #began = false;
  /** Main has ended, and there are pages which preempt channels have still to bring. */
  #awaitsRest = false;
  #runs = false;
  /** From LISTEN on: settles when every page is in place. */
  #receiving: Promise<void> | undefined;
  #pausedBy: Error | undefined;
  #abandonedBy: Error | undefined;
  #resumed: () => void = () => {};
  readonly #urgent: UrgentPages;

  /** Throws MIGRATION_MISMATCH, MIGRATION_UNSUPPORTED. */
  constructor(parts: PostcopyDestinationParts, { ram, blocks, advised }: AdvisedRam) {
    this.#parts = parts;
    this.#connection = new SourceConnection(parts.stream.channel);
    this.#reconnection = new Reconnection(parts.waitsFor);
    this.#pages = new LatePages({
      machine: parts.machine,
      ram,
      blocks,
      advised,
      blocktime: parts.settings.capability('postcopy-blocktime'),
      say: (message) => this.#connection.say(message),
    });
    this.sink = this.#pages.sink(parts.stream.channel.label);
    this.#urgent = new UrgentPages({
      pages: this.#pages,
      blocks,
      targetPageSize: parts.machine.targetPageSize,
      channels: parts.settings.capability('postcopy-preempt') ? parts.preemptChannels : 0,
      settings: parts.stream.settings,
      drain: () => this.#drain(),
    });
    this.#main = {
      stream: parts.stream,
      pages: this.#pages,
      count: parts.count,
      drain: () => this.#drain(),
      resumed: () => {
        if (parts.status() !== 'postcopy-recover') throw unsupported('POSTCOPY_RESUME outside of a recovery');
        this.#pausedBy = undefined;
        this.#resumed();
        parts.move('postcopy-active');
      },
    };
  }

  /** The package has come: nothing comes over any other way than the main and the preempt channels any more. */
  get began(): boolean {
    return this.#began;
  }

  /** Why there is no connection, while there is none. */
  get pausedBy(): Error | undefined {
    return this.#pausedBy;
  }

  /** With capability postcopy-blocktime. */
  get figures(): BlocktimeFigures | undefined {
    return this.#pages.figures;
  }

  /** Pages asked for, those of earlier connections included. */
  get requests(): number {
    return this.#pages.requests.total;
  }

  get awaitsPreempt(): boolean {
    return this.#urgent.awaitsChannels;
  }

  /** While preempt channels have still to bring pages and main has ended: grows with what comes there, bytes. Undefined at any other time. */
  get late(): number | undefined {
    return this.#awaitsRest ? this.urgentTotals.bytes : undefined;
  }

  /** What has come over preempt channels, those of earlier connections included. */
  get urgentTotals(): UrgentTotals {
    return this.#urgent.totals;
  }

  /** POSTCOPY_RAM_DISCARD. Throws MIGRATION_DISCARD. */
  discard({ block, ranges }: Command & { readonly name: 'POSTCOPY_RAM_DISCARD' }): void {
    this.#pages.discard(block, ranges);
  }

  /** Resolves when every page is in place. Rejects if the machine has not run, or when abandoned. */
  async run(event: StreamEvent & { readonly kind: 'package' }): Promise<void> {
    const { stream, move, listener, signal } = this.#parts;
    this.#began = true;
    move('postcopy-device');
    // The stream's parser goes on behind it.
    const inner = stream.packaged({ ...event, bytes: Buffer.from(event.bytes) });
    try {
      await this.#urgent.open(this.#connection, listener, signal);
      for (let next = inner.next(); next !== undefined; next = inner.next()) {
        const taken = this.#takePackaged(next);
        // A device that waits for a page which can come no more waits no more.
        await (this.#receiving === undefined ? taken : Promise.race([taken, this.#receiving.then(() => taken)]));
      }
      if (!this.#runs) throw unsupported('a package without POSTCOPY_LISTEN and POSTCOPY_RUN');
    } catch (thrown) {
      // A machine that cannot run is not helped by another connection, also if RUN has come.
      this.abandon(asError(thrown));
      throw thrown;
    }
    await this.#receiving;
    await this.#pages.end();
  }

  /** QMP migrate-recover: another connection is awaited at `listener`. Throws MIGRATION_STATE. */
  recover(listener: SourceListener): void {
    const status = this.#parts.status();
    if (status === 'completed') throw wrongState(status, ALL_HERE);
    if (status !== 'postcopy-paused') throw wrongState(status, 'there is no paused postcopy that could be recovered');
    this.#reconnection.offer(listener);
  }

  /** QMP migrate-pause. Throws MIGRATION_STATE. */
  pause(): void {
    const status = this.#parts.status();
    if (status !== 'postcopy-active' && status !== 'postcopy-recover')
      throw wrongState(status, 'only a postcopy in state postcopy-active or postcopy-recover can be paused');
    this.lose(new MigrationError({ code: 'MIGRATION_PAUSED' }, 'the connection was given up (migrate-pause)'));
  }

  /** The connection is of no use any more: another one is awaited. */
  lose(error: Error): void {
    this.#connection.lose(error);
  }

  /** `run` rejects with `error`, wherever it is. */
  abandon(error: Error): void {
    this.#abandonedBy ??= error;
    this.#connection.lose(error);
    this.#reconnection.end(error);
  }

  /** After `run` has resolved: all but the main channel. Never throws. */
  async close(): Promise<void> {
    this.#parts.listener.close();
    await this.#connection.closePreempt();
  }

  /** After a failure, the stream being interrupted: when it resolves nobody puts pages into the machine, and the main channel is still open. Never throws. */
  async stop(error: Error): Promise<void> {
    this.abandon(error);
    await this.#receiving?.catch(() => {});
    await this.#connection.unread();
  }

  async #takePackaged(event: StreamEvent): Promise<void> {
    if (event.kind !== 'command') return await this.#parts.loadDevice(event);
    const { command } = event;
    switch (command.name) {
      case 'POSTCOPY_LISTEN':
        this.sink.listen();
        await this.#pages.begin();
        this.#receiving = this.#receive();
        this.#receiving.catch(() => {});
        return;
      case 'PING':
        this.#connection.say({ type: 'PONG', value: command.value });
        return;
      case 'POSTCOPY_RUN':
        // First the state: the connection may break while the machine starts.
        this.#runs = true;
        this.#parts.move('postcopy-active');
        if (this.#pages.runsEarly) await this.#parts.start();
        return;
      default:
        throw unsupported(`${command.name} in a package`);
    }
  }

  /** Takes pages until all are here, through as many connections as it takes. */
  async #receive(): Promise<void> {
    for (;;) {
      try {
        await this.#connection.read(readMain(this.#connection, this.#main));
        await this.#everyPage();
        return;
      } catch (thrown) {
        const error = asError(thrown);
        // Whoever ends the migration has a last word to say over it.
        if (this.#abandonedBy !== undefined) throw this.#abandonedBy;
        if (!this.#runs) throw error;
        await this.#connection.close(error);
        await this.#pause(error);
      }
    }
  }

  /** A machine that can take no more is not helped by another connection. */
  async #drain(): Promise<void> {
    try {
      await this.#parts.machine.drain();
    } catch (thrown) {
      this.abandon(asError(thrown));
      throw thrown;
    }
  }

  /** Behind EOF: pages may still be on their way on the preempt channel. */
  async #everyPage(): Promise<void> {
    const count = this.#pages.received.missing;
    if (count > 0 && !this.#urgent.hasChannels) {
      const why = `the source has ended, but ${count} pages have not come`;
      throw new MigrationError({ code: 'MIGRATION_PAGES_MISSING', count }, why);
    }
    this.#awaitsRest = true;
    await this.#connection.whileItLasts(this.#pages.whole()).finally(() => {
      this.#awaitsRest = false;
    });
  }

  /** Waits until a connection is there again over which the stream can go on. Rejects when abandoned. */
  async #pause(cause: Error): Promise<void> {
    const { stream, move, signal } = this.#parts;
    this.#pages.requests.close();
    this.#pausedBy = cause;
    move('postcopy-paused');
    const { main, listener } = await this.#reconnection.connection(signal, (error) => {
      this.#pausedBy = error;
    });
    const connection = new SourceConnection(main);
    this.#connection = connection;
    this.sink.reset();
    stream.moveTo(main);
    move('postcopy-recover');
    if (this.#abandonedBy !== undefined) connection.lose(this.#abandonedBy);
    const resumed = new Promise<void>((resolve) => {
      this.#resumed = resolve;
    });
    inTime(connection.whileItLasts(resumed), 'going on', stream.settings).catch((error: unknown) =>
      connection.lose(asError(error)),
    );
    this.#urgent.open(connection, listener, signal).catch((error: unknown) => connection.lose(asError(error)));
  }
}
