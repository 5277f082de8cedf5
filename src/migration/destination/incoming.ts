import { asError, explain, nowMs, StateMachine, unreachable } from '../../base/index.ts';
import { type ChannelInfo, prepareThreads } from '../../dataplane/index.ts';
import type { DestinationMachine, IncomingRam, LoadOrder } from '../../machine/index.ts';
import { isVersionBefore, machineVersion, type SettingsView, WAITS } from '../../settings/index.ts';
import type { Channel } from '../../transport/index.ts';
import type { Command, RamCounts, StreamEvent } from '../../wire/index.ts';
import { unlessAborted } from '../deadline.ts';
import { MigrationError, mismatch, unsupported, wrongState } from '../errors.ts';
import { type Agreement, agreedInfo, agreedSettings, preemptChannels } from '../handshake/agreement.ts';
import { shakeHandsAsDestination } from '../handshake/ends.ts';
import type { MigrationInfo, MigrationStatus } from '../host.ts';
import { pageCompression } from '../page-compression.ts';
import type { AdvisedPages } from '../postcopy/destination/late-pages.ts';
import { PostcopyDestination, type PostcopyDestinationParts } from '../postcopy/destination/postcopy-destination.ts';
import { loadCostWords, PING_HELLO, PING_LOAD_COST, PONG_VMFERRY, SHUT_NEVER_STARTED } from '../return-path.ts';
import { StallWatch } from '../stall-watch.ts';
import { NO_CHANNELS } from '../statistics.ts';
import { INCOMING_ARCS } from '../status.ts';
import { Arrivals, type SourceListener } from './arrivals.ts';
import { checkConfiguration } from './check-configuration.ts';
import { IncomingStream } from './incoming-stream.ts';
import { answer, hangUp, hearOut, sayArrived, sayFailed } from './last-words.ts';
import { LoadTasks } from './load-tasks.ts';
import { RamChannels } from './ram-channels.ts';
import { SwitchoverAcks } from './switchover-acks.ts';

/** Of a VM that was given none: what QEMU's channels announce then. */
const NO_UUID = new Uint8Array(16);

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
 * The destination conductor of one migration: reads the main stream element by element and puts each where it belongs.
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
  readonly #counts: RamCounts = { normal: 0, zero: 0, xbzrle: 0, xbzrleBytes: 0 };
  /** Loading that goes on beside the stream. */
  readonly #tasks: LoadTasks;
  #arrivals: Arrivals | undefined;
  /** With the other end, if it has shaken hands. */
  #agreement: Agreement | undefined;
  #channel: Channel | undefined;
  #stream: IncomingStream | undefined;
  /** With multifd, once all have come. */
  #channels: RamChannels | undefined;
  /** Once the machine type is known. */
  #acks: SwitchoverAcks | undefined;
  #machineType = '';
  #loadCostTold: Promise<void> | undefined;
  /** What POSTCOPY_ADVISE has said; with it the migration may become a postcopy. */
  #advised: AdvisedPages | undefined;
  #postcopy: PostcopyDestination | undefined;
  #waitsFor: string | undefined;
  /** Whether the other channels keep up with main. */
  #laggards: StallWatch | undefined;
  /** Sources of the stream's dialect leave the TLS sessions of their channels without an end. */
  #cutIsEnd = true;
  #failure: Error | undefined;
  #committed = false;
  #started = false;
  #startMs = nowMs();
  #endMs: number | undefined;
  #totalBytes = 0;

  constructor(options: IncomingOptions) {
    this.#options = options;
    this.#machine = options.machine;
    this.#settings = options.settings;
    this.#tasks = new LoadTasks({
      signal: this.#abort.signal,
      configLoad: options.settings.parameter('x-device-config-load'),
      failed: (error) => this.#fail(asError(error)),
      initialDataLoaded: (device) => this.#acks?.loaded(device),
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
  progress(): {
    readonly bytes: number;
    readonly pages: Readonly<RamCounts>;
    readonly ramTotal: number;
    readonly ms: number;
  } {
    const main = this.#stream?.bytesRead ?? 0;
    const channels = this.#channels?.totals ?? NO_CHANNELS;
    const urgent = this.#postcopy?.urgentTotals ?? NO_CHANNELS;
    const { normal, zero, ...differences } = this.#counts;
    return {
      bytes: main + channels.bytes + urgent.bytes,
      pages: {
        normal: normal + channels.normalPages + urgent.normalPages,
        zero: zero + channels.zeroPages + urgent.zeroPages,
        ...differences,
      },
      ramTotal: this.#totalBytes,
      ms: (this.#endMs ?? nowMs()) - this.#startMs,
    };
  }

  /** The postcopy under way. Throws MIGRATION_STATE if there is none. */
  get postcopy(): PostcopyDestination {
    if (this.#postcopy === undefined) throw wrongState(this.status, 'there is no postcopy under way');
    return this.#postcopy;
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

  /** For a wait that whoever fails does not end. */
  async #unlessFailed(wait: Promise<void> | undefined): Promise<void> {
    if (wait !== undefined) await unlessAborted(wait, this.#abort.signal);
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
    this.#agreement = await shakeHandsAsDestination(main, terms, this.#loadOrder);
    this.#settings = agreedSettings(this.#settings, this.#agreement);
    prepareThreads('receive', this.#channelCount);
    return this.#channelCount;
  }

  async #load(channel: Channel): Promise<void> {
    const stream = new IncomingStream(channel, this.#machine, this.#settings);
    this.#stream = stream;
    let described = false;
    for (let event = await stream.next(); event !== undefined; event = await stream.next()) {
      await this.#take(event, stream);
      this.#check();
      if (event.kind === 'package') break;
      described = event.kind === 'description';
    }
    if (!described && !this.#committed) await this.#machine.describe('');
  }

  async #take(event: StreamEvent, stream: IncomingStream): Promise<void> {
    switch (event.kind) {
      case 'header':
      case 'section-begin':
      case 'eof':
        return;
      case 'configuration':
        this.#machineType = event.configuration.machineType;
        this.#cutIsEnd = !this.#settings.dialect(event.configuration.machineType).multifdCleanTlsTermination;
        checkConfiguration(event.configuration, this.#machine, this.#settings, this.#options.takesAnyMachine);
        await this.#machine.configure(event.configuration, this.#tasks);
        this.#acks = this.#switchoverAcks(event.configuration.machineType, stream.channel);
        return;
      case 'command':
        return await this.#command(event.command, stream);
      case 'ram-blocks': {
        if (event.blocks.some((block) => block.mapped !== undefined))
          throw unsupported('a mapped-ram stream over a channel');
        this.#totalBytes = event.totalBytes;
        const ignoreShared = event.blocks.some((block) => block.guestAddress !== undefined);
        const ram = await this.#machine.prepareRam(event.blocks, { ignoreShared });
        this.#options.prepared?.(ram);
        await this.#channels?.start(ram.share(), this.#machine.besideDevices ?? [], this.#cutIsEnd);
        if (this.#advised !== undefined) {
          const advised = { ram, blocks: event.blocks, advised: this.#advised };
          this.#postcopy = new PostcopyDestination(this.#postcopyParts(stream), advised);
        }
        return stream.setRamSink(this.#postcopy?.sink ?? ram);
      }
      case 'ram-batch':
        this.#count(event.pages);
        return await this.#machine.drain();
      case 'multifd-flush':
        return await this.#unlessFailed(this.#channels?.flushed());
      case 'ram-eos':
        return await this.#unlessFailed(this.#channels?.sectionEnded());
      case 'section-end':
        if (event.ramPages !== undefined) this.#count(event.ramPages);
        return;
      case 'package':
        return await this.postcopy.run(event);
      case 'device':
        return await this.#machine.loadDevice(event.section, event.body);
      case 'vfio':
        await this.#machine.loadElement(event.section, event.element);
        if (this.#settings.parameter('x-device-config-load') === 'serial') await this.#tasks.settled();
        return;
      case 'description':
        return await this.#machine.describe(event.text);
      default:
        unreachable(event);
    }
  }

  #postcopyParts(stream: IncomingStream): PostcopyDestinationParts {
    return {
      machine: this.#machine,
      settings: this.#settings,
      stream,
      listener: this.#options.listener,
      preemptChannels: preemptChannels(this.#settings, this.#agreement),
      signal: this.#abort.signal,
      status: () => this.status,
      move: (status) => this.#state.move(status),
      waitsFor: (what) => {
        this.#waitsFor = what;
      },
      loadDevice: (event) => this.#take(event, stream),
      start: async () => {
        await this.#tasks.settled();
        await this.#machine.describe('');
        await this.#adopt();
      },
      count: (pages) => this.#count(pages),
    };
  }

  #count(pages: RamCounts): void {
    this.#counts.normal = pages.normal;
    this.#counts.zero = pages.zero;
    this.#counts.xbzrle = pages.xbzrle;
    this.#counts.xbzrleBytes = pages.xbzrleBytes;
  }

  async #command(command: Command, stream: IncomingStream): Promise<void> {
    switch (command.name) {
      case 'OPEN_RETURN_PATH':
        stream.sourceListens = true;
        this.#acks?.returnPathOpened();
        return;
      case 'PING':
        if (!stream.sourceListens) throw unsupported('PING before OPEN_RETURN_PATH');
        if (command.value === PING_LOAD_COST) return await this.#tellLoadCost(stream.channel);
        // Our sources ask so whether all is loaded that stands before it.
        await this.#tasks.settled();
        if (command.value === PING_HELLO) await answer(stream.channel, { type: 'PONG', value: PONG_VMFERRY });
        return await answer(stream.channel, { type: 'PONG', value: command.value });
      case 'SWITCHOVER_START':
        for (const { device, state } of this.#channels?.openStates() ?? []) this.#machine.loadBeside?.(device, state);
        return;
      case 'PACKAGED':
        return;
      case 'POSTCOPY_ADVISE':
        if (!this.#settings.capability('postcopy-ram')) throw mismatch('capability postcopy-ram', 'off', 'on');
        if (command.pageSizes === undefined) throw unsupported('postcopy of dirty bitmaps');
        // 8.2 to 10.0 do not begin it, and those before go on meeting on channels that nobody uses any more.
        if (this.#channels !== undefined && isVersionBefore(machineVersion(this.#machineType) ?? '8.2', '8.2'))
          throw unsupported(`multifd with postcopy-ram from ${this.#machineType} (QEMU does it from 10.1 on)`);
        this.#advised = command.pageSizes;
        return;
      case 'POSTCOPY_RAM_DISCARD':
        return this.postcopy.discard(command);
      case 'POSTCOPY_LISTEN':
      case 'POSTCOPY_RUN':
      case 'POSTCOPY_RESUME':
      case 'RECV_BITMAP':
        throw unsupported(`${command.name} outside of a package`);
      case 'ENABLE_COLO':
        throw unsupported('COLO');
      default:
        unreachable(command);
    }
  }

  /** Beside the stream: a device that is at work answers when it is through. Whoever cannot be told, or cannot tell, is noticed elsewhere. */
  async #tellLoadCost(channel: Channel): Promise<void> {
    // One at a time: a source that asks and asks is not read any further.
    await this.#loadCostTold;
    const tell = async () => {
      const cost = await this.#machine.loadCost?.(this.#loadOrder);
      const words = cost === undefined ? [] : loadCostWords(cost);
      for (const value of [...words, PING_LOAD_COST]) await answer(channel, { type: 'PONG', value });
    };
    this.#loadCostTold = tell().catch(() => {});
  }

  /** In which devices are loaded. With parallel channels `serial` is their configurations only. */
  get #loadOrder(): LoadOrder {
    const order = this.#settings.parameter('x-device-config-load');
    return order === 'serial' && !this.#settings.capability('multifd') ? 'in line' : order;
  }

  #switchoverAcks(machineType: string, channel: Channel): SwitchoverAcks {
    return new SwitchoverAcks({
      legacy: this.#settings.dialect(machineType).switchoverAckLegacy,
      expected: this.#settings.capability('switchover-ack'),
      devices: (this.#machine.switchoverAckNeeded ?? []).filter((one) => this.#agreement?.prepares(one) !== false),
      // Whoever cannot be told is gone, which is noticed elsewhere.
      acknowledge: () => void answer(channel, { type: 'SWITCHOVER_ACK' }).catch(() => {}),
    });
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
