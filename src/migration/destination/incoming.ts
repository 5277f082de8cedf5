import { asError, explain, nowMs, StateMachine } from '../../base/index.ts';
import { type ChannelInfo, prepareThreads } from '../../dataplane/index.ts';
import type { DestinationMachine, IncomingRam } from '../../machine/index.ts';
import { type SettingsView, WAITS } from '../../settings/index.ts';
import type { Channel } from '../../transport/index.ts';
import { MigrationError, wrongState } from '../errors.ts';
import { leftEarly } from '../gave-up.ts';
import { type Agreement, agreedInfo, agreedSettings, preemptChannels } from '../handshake/agreement.ts';
import { shakeHandsAsDestination } from '../handshake/ends.ts';
import type { MigrationInfo, MigrationStatus } from '../host.ts';
import { pageCompression } from '../page-compression.ts';
import type { PostcopyDestination } from '../postcopy/destination/postcopy-destination.ts';
import { SHUT_NEVER_STARTED } from '../return-path.ts';
import { StallWatch } from '../stall-watch.ts';
import { INCOMING_ARCS } from '../status.ts';
import { Arrivals, type SourceListener } from './arrivals.ts';
import { IncomingStream } from './incoming-stream.ts';
import { hangUp, hearOut, sayArrived, sayFailed } from './last-words.ts';
import { LoadTasks } from './load-tasks.ts';
import { RamChannels } from './ram-channels.ts';
import { type Arrived, loadOrderOf, NOTHING, StreamLoader } from './stream-loader.ts';

/** Of a VM that was given none: what QEMU's channels announce then. */
const NO_UUID = new Uint8Array(16);

/** A source that leaves before it has sent more has not found here what it wants; some pages may have come all the same. */
const BEGINNING_BYTES = 1024 * 1024;

export interface IncomingObserver {
  status?(status: MigrationStatus): void;
  /** The machine runs here now. */
  started?(): void;
}

export interface IncomingOptions {
  readonly machine: DestinationMachine;
  readonly settings: SettingsView;
  /** Closed by the migration when nobody else of its source can come. */
  readonly listener: SourceListener;
  readonly observer?: IncomingObserver;
  /** A checkpoint takes a stream of any machine type and any of the checked capabilities. */
  readonly takesAnyMachine: boolean;
  /** The machine's RAM is ready to be filled, and nothing has come yet. What it throws ends the migration. */
  readonly prepared?: (ram: IncomingRam) => void;
  /** Why the source failed, where it can be asked (it lives in this process); waited for after a failure. */
  readonly farFailure?: () => Promise<Error | undefined>;
}

export interface IncomingResult {
  readonly status: 'completed' | 'failed';
  readonly info: MigrationInfo;
  readonly error?: Error;
  /** False if the source has a return path but SHUT 0 may not have reached it: the source may have resumed its guest. */
  readonly confirmed: boolean;
}

/**
 * The destination conductor of one migration: who comes, what is loaded (StreamLoader), who has the guest in the end.
 * Nothing runs, and nothing looks whole, before all of it has arrived: then commit, start, SHUT 0, in this order. A machine that has been
 * started never goes back; one that has not is discarded on any failure.
 */
export class IncomingMigration {
  readonly #machine: DestinationMachine;
  /** As the process has them; after a handshake as both ends use them. */
  #settings: SettingsView;
  readonly #options: IncomingOptions;
  readonly #state: StateMachine<MigrationStatus>;
  readonly #abort = new AbortController();
  /** Loading that goes on beside the stream. */
  readonly #tasks: LoadTasks;
  #arrivals: Arrivals | undefined;
  /** With the other end, if it has shaken hands. */
  #agreement: Agreement | undefined;
  #channel: Channel | undefined;
  #stream: IncomingStream | undefined;
  /** With multifd, once all have come. */
  #channels: RamChannels | undefined;
  /** Once all connections are there. */
  #loader: StreamLoader | undefined;
  #waitsFor: string | undefined;
  /** Whether the other channels keep up with main. */
  #laggards: StallWatch | undefined;
  #failure: Error | undefined;
  #committed = false;
  #started = false;
  #startMs = nowMs();
  #endMs: number | undefined;

  constructor(options: IncomingOptions) {
    this.#options = options;
    this.#machine = options.machine;
    this.#settings = options.settings;
    this.#tasks = new LoadTasks({
      signal: this.#abort.signal,
      configLoad: options.settings.parameter('x-device-config-load'),
      failed: (error) => this.#fail(asError(error)),
      initialDataLoaded: (device) => this.#loader?.initialDataLoaded(device),
    });
    this.#state = new StateMachine<MigrationStatus>('none', INCOMING_ARCS, ({ to }) => options.observer?.status?.(to));
  }

  get status(): MigrationStatus {
    return this.#state.state;
  }

  /** As query-migrate on a destination: status and error; vmferry adds what has arrived. */
  info(): MigrationInfo {
    const info: MigrationInfo = { status: this.status };
    const error = this.#failure ?? this.#postcopy?.pausedBy;
    if (error !== undefined) info['error-desc'] = explain(error);
    if (this.#settings.capability('postcopy-preempt'))
      info['x-postcopy-preempt-channels'] = preemptChannels(this.#settings, this.#agreement);
    Object.assign(info, this.#postcopy?.figures);
    if (this.#agreement !== undefined) info['x-handshake'] = agreedInfo(this.#agreement);
    const waitingFor = this.#waitsFor ?? this.#waitingFor;
    if (waitingFor !== undefined) info['x-waiting-for'] = waitingFor;
    return info;
  }

  get #waitingFor(): string | undefined {
    if (this.#postcopy?.awaitsPreempt) return WAITS.preempt.what;
    switch (this.status) {
      case 'setup':
        return this.#arrivals?.waitingFor;
      case 'active':
      case 'postcopy-device':
      case 'postcopy-active':
        if (this.#endMs !== undefined) return WAITS.farewell.what;
        return this.#laggards?.waitingFor ?? this.#machine.waitingFor ?? this.#stream?.waitingFor;
      case 'postcopy-recover':
        return WAITS['going on'].what;
      default:
        return undefined;
    }
  }

  /** Those of parallel channels. */
  get threads(): readonly ChannelInfo[] {
    return this.#channels?.threads ?? [];
  }

  /** What has arrived so far, for progress: bytes of the stream, pages by kind, bytes of guest RAM announced. */
  progress(): Arrived & { readonly ms: number } {
    return { ...(this.#loader?.arrived ?? NOTHING), ms: (this.#endMs ?? nowMs()) - this.#startMs };
  }

  /** The postcopy under way. Throws MIGRATION_STATE if there is none. */
  get postcopy(): PostcopyDestination {
    const postcopy = this.#postcopy;
    if (postcopy === undefined) throw wrongState(this.status, 'there is no postcopy under way');
    return postcopy;
  }

  /** Ends whatever is under way, since the process ends. */
  abandon(): void {
    this.cancel();
    this.#postcopy?.abandon(new MigrationError({ code: 'MIGRATION_CANCELLED' }, 'the process was told to quit'));
  }

  /** Ends the migration unless the machine is committed already; the source resumes its guest. */
  cancel(): void {
    if (this.#committed) return;
    const error = new MigrationError({ code: 'MIGRATION_CANCELLED' }, 'the migration was cancelled here');
    this.#fail(error);
    if (this.#postcopy === undefined) this.#channel?.destroy(error);
    else this.#postcopy.abandon(error);
  }

  /** Runs the migration to its end; never throws. */
  async run(): Promise<IncomingResult> {
    this.#state.move('setup');
    try {
      const channel = await this.#arrive();
      this.#startMs = nowMs();
      this.#state.move('active');
      this.#watchLaggards();
      await this.#load(channel);
      // In a postcopy the channels have had nothing to do since the switchover.
      const channels = this.#postcopy?.began ? undefined : this.#channels;
      channels?.endPages();
      await this.#tasks.settled();
      await channels?.finish();
      this.#check();
      if (!this.#committed) await this.#adopt();
    } catch (thrown) {
      this.#fail(asError(thrown));
      return await this.#giveUp();
    } finally {
      if (this.#settings.capability('multifd')) prepareThreads('receive', 0);
      this.#laggards?.end();
    }
    return await this.#confirm(this.#stream!);
  }

  #watchLaggards(): void {
    const late = () => this.#postcopy?.late;
    const channels = () => this.#channels;
    const watched = {
      get waitsForPeer() {
        return late() !== undefined || channels()?.waitsForPeer === true;
      },
      get moved() {
        return late() ?? channels()?.totals.bytes ?? 0;
      },
    };
    this.#laggards = new StallWatch('laggards', this.#settings, watched, (error) => {
      if (this.#postcopy?.began) this.#postcopy.lose(error);
      else this.#fail(error);
    });
  }

  /** The machine takes over what has come, and goes on. From then on it is never discarded; if it does not start, it is. */
  async #adopt(): Promise<void> {
    await this.#machine.commit();
    this.#committed = true;
    await this.#machine.start();
    this.#started = true;
    this.#options.observer?.started?.();
  }

  #fail(error: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#abort.abort(error);
    this.#stream?.interrupt(error);
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** All connections of the source. */
  async #arrive(): Promise<Channel> {
    const { listener, takesAnyMachine } = this.#options;
    prepareThreads('receive', this.#channelCount);
    try {
      this.#arrivals = new Arrivals({
        listener,
        channels: this.#channelCount,
        uuid: takesAnyMachine ? undefined : (this.#machine.uuid ?? NO_UUID),
        settings: this.#settings,
        greet: this.#settings.capability('x-vmferry-handshake') ? (main) => this.#shakeHands(main) : undefined,
        signal: this.#abort.signal,
      });
      const { main, channels } = await this.#arrivals.all();
      this.#channel = main;
      if (channels.length > 0) {
        this.#channels = new RamChannels(channels, {
          compression: pageCompression(this.#settings),
          queuedBytesMax: this.#settings.parameter('x-migration-max-queued-buffers-size'),
          failed: (error) => {
            if (!this.#postcopy?.began) this.#fail(error);
          },
        });
      }
      this.#check();
      return main;
    } finally {
      // A preempt channel comes last, and late.
      if (!this.#settings.capability('postcopy-preempt') || this.#channel === undefined) listener.close();
    }
  }

  /** Of parallel channels. */
  get #channelCount(): number {
    return this.#settings.capability('multifd') ? this.#settings.parameter('multifd-channels') : 0;
  }

  /** Returns how many parallel channels come. */
  async #shakeHands(main: Channel): Promise<number> {
    const moreConnections = this.#options.listener.single !== true;
    const terms = { machine: this.#machine, settings: this.#settings, moreConnections };
    this.#agreement = await shakeHandsAsDestination(main, terms, loadOrderOf(this.#settings));
    this.#settings = agreedSettings(this.#settings, this.#agreement);
    prepareThreads('receive', this.#channelCount);
    return this.#channelCount;
  }

  async #load(channel: Channel): Promise<void> {
    const stream = new IncomingStream(channel, this.#machine, this.#settings);
    this.#stream = stream;
    this.#loader = new StreamLoader({
      machine: this.#machine,
      settings: this.#settings,
      stream,
      channels: this.#channels,
      tasks: this.#tasks,
      takesAnyMachine: this.#options.takesAnyMachine,
      prepared: this.#options.prepared,
      prepares: (device) => this.#agreement?.prepares(device) !== false,
      listener: this.#options.listener,
      preemptChannels: preemptChannels(this.#settings, this.#agreement),
      signal: this.#abort.signal,
      status: () => this.status,
      move: (status) => this.#state.move(status),
      waitsFor: (what) => {
        this.#waitsFor = what;
      },
      adopt: () => this.#adopt(),
    });
    const described = await this.#loader.load();
    if (!described && !this.#committed) await this.#machine.describe('');
  }

  get #postcopy(): PostcopyDestination | undefined {
    return this.#loader?.postcopy;
  }

  /** The machine is here. */
  async #confirm(stream: IncomingStream): Promise<IncomingResult> {
    const { channel } = stream;
    this.#endMs = nowMs();
    const confirmed = await sayArrived(stream);
    if (this.#postcopy?.began) await this.#channels?.cancel(new Error('the migration is complete'));
    this.#channels?.close();
    await this.#postcopy?.close();
    channel.destroy();
    await channel.closed;
    this.#state.move('completed');
    return { status: 'completed', info: this.info(), confirmed };
  }

  async #giveUp(): Promise<IncomingResult> {
    if (this.progress().bytes < BEGINNING_BYTES) this.#failure = leftEarly(this.#failure!, 'source', this.#settings);
    const error = this.#failure!;
    const stream = this.#stream;
    this.#endMs = nowMs();
    await this.#postcopy?.stop(error);
    // A machine that was told to start and did not may have devices that run: they end before the guest is given back.
    if (this.#committed && !this.#started) await this.#machine.discard();
    // Early, so that the source knows why its channels end. But in a postcopy a QEMU that hears it takes a guest back that has run here.
    const gone = this.#started && this.#postcopy?.began === true;
    if (stream !== undefined && !gone) await sayFailed(stream, this.#started ? 1 : SHUT_NEVER_STARTED);
    await this.#channels?.cancel(error);
    this.#options.listener.close();
    if (stream !== undefined) await hangUp(stream);
    if (stream !== undefined && this.#postcopy?.began === true && !gone) await hearOut(stream);
    const channel = stream?.channel ?? this.#channel;
    channel?.destroy(error);
    await channel?.closed;
    if (!this.#committed) await this.#machine.discard();
    this.#failure = (await this.#options.farFailure?.()) ?? error;
    this.#state.move('failed');
    return { status: 'failed', info: this.info(), error: this.#failure, confirmed: true };
  }
}
