import { EventEmitter } from 'node:events';
import { prepareThreads, THREAD_KINDS, type ThreadKind } from '../dataplane/index.ts';
import type { DestinationMachine, RamBlock, RunState, SourceMachine } from '../machine/index.ts';
import type { Settings, SettingsView } from '../settings/index.ts';
import { type Address, isExposed, isSocketAddress, parseAddress, type TlsTerms } from '../transport/index.ts';
import { CheckpointSide, CheckpointSource, innerSettings, requireFile } from './checkpoint-file.ts';
import type { SourceListener } from './destination/arrivals.ts';
import { IncomingMigration, type IncomingResult } from './destination/incoming.ts';
import { wrongState } from './errors.ts';
import type { Host, HostEvent, HostStatus, MigrationInfo, MigrationStatus, MigrationThread } from './host.ts';
import { connector, dialer, listenAt, requireConnections, requirePlaceForTls } from './many-connections.ts';
import { Objects } from './objects.ts';
import { routeTo } from './postcopy/source/route.ts';
import { hasReturnPath } from './source/has-return-path.ts';
import { OutgoingMigration, type OutgoingResult } from './source/outgoing.ts';

/** A machine that runs here: it can leave, and it can arrive. */
export interface HostedMachine extends SourceMachine, DestinationMachine {
  readonly ram: readonly RamBlock[];
  readonly targetPageSize: number;
  readonly machineType: string;
  readonly uuid: Uint8Array | undefined;
  readonly runState: RunState;
}

const NONE_REFUSED = { count: 0, last: '' };

type SourceOptions = CheckpointSource['options'];

export interface VmHostOptions {
  readonly name: string;
  readonly machine: HostedMachine;
  readonly settings: Settings;
  readonly objects?: Objects;
  /** Called by quit, after everything of the host has ended. */
  readonly quit: () => Promise<void>;
  /** Called when a machine is awaited in clear text where other machines than this one can come. */
  readonly exposed?: (address: Address) => void;
  /** Called when an incoming migration is over, well or badly; `exitOnError` as migrate-incoming had it. */
  readonly arrived?: (result: IncomingResult, exitOnError: boolean) => void;
}

/**
 * One process with a machine that runs, as its manager sees it. Holds at most one outgoing or incoming migration; the last one's figures
 * stay readable until the next begins.
 */
export class VmHost implements Host {
  readonly name: string;
  readonly settings: Settings;
  readonly objects: Objects;
  readonly #options: VmHostOptions;
  readonly #machine: HostedMachine;
  readonly #events = new EventEmitter<{ event: [HostEvent] }>();
  #outgoing: OutgoingMigration | undefined;
  #incoming: IncomingMigration | undefined;
  /** That the incoming migration comes from. */
  #checkpoint: CheckpointSource | undefined;
  #running: Promise<OutgoingResult | IncomingResult> | undefined;
  #listening: Address | undefined;
  /** migrate-incoming is about to listen. */
  #arriving = false;

  constructor(options: VmHostOptions) {
    this.name = options.name;
    this.settings = options.settings;
    this.objects = options.objects ?? new Objects();
    this.#options = options;
    this.#machine = options.machine;
    this.settings.follow(() => this.#prepare());
    this.#prepare();
  }

  /** Where an incoming migration is awaited, with the real port. */
  get listening(): Address | undefined {
    return this.#listening;
  }

  status(): HostStatus {
    const status = this.#machine.runState;
    return { running: status === 'running', status };
  }

  async stop(): Promise<void> {
    if (this.#machine.runState !== 'running') return;
    await this.#machine.stop('paused');
    this.#emit({ event: 'STOP' });
  }

  async cont(): Promise<void> {
    const state = this.#machine.runState;
    switch (state) {
      case 'running':
        return;
      case 'inmigrate':
        throw wrongState(state, 'the machine has not arrived yet: it waits for an incoming migration');
      case 'finish-migrate':
        throw wrongState(state, 'a migration is about to complete: cancel it first');
      case 'shutdown':
      case 'internal-error':
        throw wrongState(state, `the machine cannot run: its state is ${state}`);
      case 'prelaunch':
      case 'paused':
      case 'postmigrate':
        await this.#machine.resume();
        this.#emit({ event: 'RESUME' });
    }
  }

  async migrate(uri: string, { resume = false }: { readonly resume?: boolean } = {}): Promise<void> {
    const address = parseAddress(uri);
    const tls = this.objects.tls(this.settings, 'client');
    if (resume) return this.#sending().postcopy.resume(routeTo(address, { tls, settings: this.settings }));
    if (this.#running !== undefined)
      throw wrongState(this.queryMigrate().status ?? 'none', 'a migration is under way already');
    const state = this.#machine.runState;
    if (state === 'inmigrate')
      throw wrongState(state, 'the machine waits for an incoming migration: there is nothing to send');
    if (state === 'postmigrate')
      throw wrongState(state, "the machine has been migrated already: 'cont' makes it run here again");
    const settings = innerSettings(this.settings.snapshot());
    requireConnections(this.settings, address);
    requirePlaceForTls(tls, this.settings, address);
    let checkpoint: CheckpointSide | undefined;
    if (this.settings.capability('mapped-ram')) {
      requireFile(address);
      checkpoint = new CheckpointSide(address, settings);
    }
    this.#incoming = undefined;
    this.#outgoing = new OutgoingMigration({
      machine: this.#machine,
      settings,
      connect: (signal) => checkpoint?.connect(signal) ?? connector(address, { tls, settings })(signal),
      dial: dialer(address, { tls, settings }),
      secured: tls !== undefined,
      copyTo: checkpoint && (() => checkpoint.ram),
      returnPath: (channel) => checkpoint !== undefined || hasReturnPath(address, channel, settings),
      inert: address.kind === 'file',
      farFailure: async () => checkpoint?.failure(),
      observer: {
        status: (status) => this.#status(status),
        pass: (pass) => {
          if (this.settings.capability('events')) this.#emit({ event: 'MIGRATION_PASS', data: { pass } });
        },
        stopped: () => this.#emit({ event: 'STOP' }),
        resumed: () => this.#emit({ event: 'RESUME' }),
      },
    });
    this.#track(this.#outgoing.run());
  }

  async migrateIncoming(uri: string, { exitOnError = true }: { readonly exitOnError?: boolean } = {}): Promise<void> {
    const address = parseAddress(uri);
    const state = this.#machine.runState;
    if (state !== 'inmigrate') throw wrongState(state, "'-incoming' was not given: the machine is here already");
    if (this.#running !== undefined || this.#arriving) {
      throw wrongState(state, 'an incoming migration is awaited or under way already');
    }
    const settings = innerSettings(this.settings.snapshot());
    requireConnections(this.settings, address);
    const tls = this.objects.tls(this.settings, 'server');
    requirePlaceForTls(tls, this.settings, address);
    this.#arriving = true;
    const source = await this.#source(address, settings, tls).finally(() => {
      this.#arriving = false;
    });
    this.#outgoing = undefined;
    this.#incoming = new IncomingMigration({
      machine: this.#machine,
      takesAnyMachine: false,
      ...source,
      observer: {
        status: (status) => this.#status(status),
        started: () => {
          if (this.#machine.runState === 'running') this.#emit({ event: 'RESUME' });
        },
      },
    });
    const arrival = this.#incoming.run();
    this.#track(arrival);
    void arrival.then((result) => this.#options.arrived?.(result, exitOnError));
  }

  /** Begins to wait for the source. */
  async #source(address: Address, settings: SettingsView, tls: TlsTerms | undefined): Promise<SourceOptions> {
    this.#checkpoint = undefined;
    if (this.settings.capability('mapped-ram')) {
      requireFile(address);
      this.#checkpoint = new CheckpointSource(address, settings);
      return this.#checkpoint.options;
    }
    const listener = await this.#listen(address, tls);
    return { listener, settings };
  }

  async #listen(address: Address, tls: TlsTerms | undefined): Promise<SourceListener> {
    const listener = await listenAt(address, { tls, settings: this.settings });
    if (tls === undefined && isExposed(listener.address)) this.#options.exposed?.(listener.address);
    this.#listening = listener.address;
    return {
      accept: (signal) => listener.accept(signal),
      next: (signal) => listener.next(signal),
      single: !isSocketAddress(listener.address),
      get refusals() {
        return listener.refusals ?? NONE_REFUSED;
      },
      // One machine arrives once: whoever knocks later is turned away.
      close: () => {
        listener.close();
        this.#listening = undefined;
      },
    };
  }

  async migrateCancel(): Promise<void> {
    if (this.#running !== undefined) this.#outgoing?.cancel();
  }

  async migrateStartPostcopy(): Promise<void> {
    this.#sending().startPostcopy();
  }

  async migratePause(): Promise<void> {
    if (this.#running !== undefined && this.#incoming !== undefined) this.#incoming.postcopy.pause();
    else this.#sending().postcopy.pause();
  }

  async migrateRecover(uri: string): Promise<void> {
    const address = parseAddress(uri);
    if (this.#incoming === undefined) {
      throw wrongState(this.queryMigrate().status ?? 'none', 'there is no incoming postcopy that could be recovered');
    }
    const { postcopy } = this.#incoming;
    const listener = await this.#listen(address, this.objects.tls(this.settings, 'server'));
    try {
      postcopy.recover(listener);
    } catch (error) {
      listener.close();
      throw error;
    }
  }

  async migrateContinue(state: MigrationStatus): Promise<void> {
    const now = this.queryMigrate().status ?? 'none';
    if (now !== state) throw wrongState(now, `the migration is in state ${now}, not ${state}`);
    this.#outgoing?.continue();
  }

  queryMigrate(): MigrationInfo {
    const info = this.#outgoing?.info() ?? this.#incoming?.info() ?? {};
    const at = this.#listening;
    if (at?.kind === 'tcp') {
      info['socket-address'] = [{ type: 'inet', host: at.host, port: String(at.port) }];
    } else if (at?.kind === 'unix') {
      info['socket-address'] = [{ type: 'unix', path: at.path }];
    }
    return info;
  }

  queryMigrationThreads(): MigrationThread[] {
    const arriving = [...(this.#incoming?.threads ?? []), ...(this.#checkpoint?.threads ?? [])];
    const threads = this.#outgoing?.threads ?? arriving;
    return threads.map(({ name, threadId }) => ({ name, 'thread-id': threadId }));
  }

  async quit(): Promise<void> {
    this.#emit({ event: 'SHUTDOWN', data: { guest: false, reason: 'host-qmp-quit' } });
    this.#outgoing?.abandon();
    this.#incoming?.abandon();
    await this.#running;
    await this.#options.quit();
  }

  onEvent(listener: (event: HostEvent) => void): () => void {
    this.#events.on('event', listener);
    return () => this.#events.off('event', listener);
  }

  /** The outgoing migration under way. Throws MIGRATION_STATE if there is none. */
  #sending(): OutgoingMigration {
    if (this.#running === undefined || this.#outgoing === undefined) {
      throw wrongState(this.queryMigrate().status ?? 'none', 'there is no outgoing migration under way');
    }
    return this.#outgoing;
  }

  #track(run: Promise<OutgoingResult | IncomingResult>): void {
    const unlock = this.settings.lock();
    this.#running = run.then((result) => {
      this.#running = undefined;
      unlock();
      // It may be tried again.
      if (result.status !== 'completed') this.#prepare();
      return result;
    });
  }

  /** Whoever switches multifd on is about to migrate: the threads of its channels get ready. */
  #prepare(): void {
    if (this.#running !== undefined) return;
    const count = this.settings.capability('multifd') ? this.settings.parameter('multifd-channels') : 0;
    const now = this.#threadKind();
    for (const kind of THREAD_KINDS) prepareThreads(kind, kind === now ? count : 0);
  }

  #threadKind(): ThreadKind {
    if (this.settings.capability('mapped-ram')) return 'copy';
    return this.#machine.runState === 'inmigrate' ? 'receive' : 'send';
  }

  #status(status: MigrationStatus): void {
    if (this.settings.capability('events')) this.#emit({ event: 'MIGRATION', data: { status } });
  }

  #emit(event: HostEvent): void {
    this.#events.emit('event', event);
  }
}
