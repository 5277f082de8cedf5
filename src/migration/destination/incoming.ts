import { asError, explain, nowMs, StateMachine, unreachable, Writer } from '../../base/index.ts';
import type { ChannelInfo } from '../../dataplane/index.ts';
import type { DestinationMachine, IncomingRam } from '../../machine/index.ts';
import type { SettingsView } from '../../settings/index.ts';
import type { Channel } from '../../transport/index.ts';
import {
  type Command,
  encodeReturnPathMessage,
  type RamCounts,
  type ReturnPathMessage,
  type StreamEvent,
} from '../../wire/index.ts';
import { within } from '../deadline.ts';
import { MigrationError, unsupported } from '../errors.ts';
import type { MigrationInfo, MigrationStatus } from '../host.ts';
import { pageCompression } from '../page-compression.ts';
import { PING_HELLO, PONG_VMFERRY, SHUT_NEVER_STARTED } from '../return-path.ts';
import { NO_CHANNELS } from '../statistics.ts';
import { INCOMING_ARCS } from '../status.ts';
import { Arrivals, type SourceListener } from './arrivals.ts';
import { checkConfiguration } from './check-configuration.ts';
import { IncomingStream } from './incoming-stream.ts';
import { LoadTasks } from './load-tasks.ts';
import { RamChannels } from './ram-channels.ts';
import { SwitchoverAcks } from './switchover-acks.ts';

/** Time for the source to close after SHUT 0, and for a last SHUT on the failure path to leave, ms. */
const CLOSING_DEADLINE_MS = 5_000;
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
  readonly #settings: SettingsView;
  readonly #options: IncomingOptions;
  readonly #state: StateMachine<MigrationStatus>;
  readonly #abort = new AbortController();
  readonly #counts: RamCounts = { normal: 0, zero: 0, xbzrle: 0, xbzrleBytes: 0 };
  /** Loading that goes on beside the stream. */
  readonly #tasks: LoadTasks;
  #arrivals: Arrivals | undefined;
  #channel: Channel | undefined;
  #stream: IncomingStream | undefined;
  /** With multifd, once all have come. */
  #channels: RamChannels | undefined;
  /** Once the machine type is known. */
  #acks: SwitchoverAcks | undefined;
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
    if (this.#failure !== undefined) info['error-desc'] = explain(this.#failure);
    if (this.status === 'setup' && this.#arrivals !== undefined) info['x-waiting-for'] = this.#arrivals.waitingFor;
    return info;
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
    const main = this.#channel?.counters.bytesRead ?? 0;
    const channels = this.#channels?.totals ?? NO_CHANNELS;
    const { normal, zero, ...differences } = this.#counts;
    return {
      bytes: main + channels.bytes,
      pages: { normal: normal + channels.normalPages, zero: zero + channels.zeroPages, ...differences },
      ramTotal: this.#totalBytes,
      ms: (this.#endMs ?? nowMs()) - this.#startMs,
    };
  }

  /** Ends the migration unless the machine is committed already; the source resumes its guest. */
  cancel(): void {
    if (this.#committed) return;
    const error = new MigrationError({ code: 'MIGRATION_CANCELLED' }, 'the migration was cancelled here');
    this.#fail(error);
    this.#channel?.destroy(error);
  }

  /** Runs the migration to its end; never throws. */
  async run(): Promise<IncomingResult> {
    this.#state.move('setup');
    try {
      const channel = await this.#arrive();
      this.#startMs = nowMs();
      this.#state.move('active');
      await this.#load(channel);
      this.#channels?.endPages();
      await this.#tasks.settled();
      await this.#channels?.finish();
      this.#check();
      await this.#machine.commit();
      this.#committed = true;
      await this.#machine.start();
      this.#started = true;
      this.#options.observer?.started?.();
    } catch (thrown) {
      this.#fail(asError(thrown));
      return await this.#giveUp();
    }
    return await this.#confirm(this.#stream!);
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
    const multifd = this.#settings.capability('multifd');
    try {
      this.#arrivals = new Arrivals({
        listener,
        channels: multifd ? this.#settings.parameter('multifd-channels') : 0,
        uuid: takesAnyMachine ? undefined : (this.#machine.uuid ?? NO_UUID),
        signal: this.#abort.signal,
      });
      const { main, channels } = await this.#arrivals.all();
      this.#channel = main;
      if (multifd) {
        this.#channels = new RamChannels(channels, {
          compression: pageCompression(this.#settings),
          queuedBytesMax: this.#settings.parameter('x-migration-max-queued-buffers-size'),
          failed: (error) => this.#fail(error),
        });
      }
      this.#check();
      return main;
    } finally {
      listener.close();
    }
  }

  async #load(channel: Channel): Promise<void> {
    const stream = new IncomingStream(channel, this.#machine);
    this.#stream = stream;
    let described = false;
    for (let event = await stream.next(); event !== undefined; event = await stream.next()) {
      await this.#take(event, stream);
      this.#check();
      described = event.kind === 'description';
    }
    if (!described) await this.#machine.describe('');
  }

  async #take(event: StreamEvent, stream: IncomingStream): Promise<void> {
    switch (event.kind) {
      case 'header':
      case 'section-begin':
      case 'eof':
        return;
      case 'configuration':
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
        await this.#channels?.start(ram.share(), this.#machine.besideDevices ?? []);
        return stream.setRamSink(ram);
      }
      case 'ram-batch':
        this.#count(event.pages);
        return await this.#machine.drain();
      case 'multifd-flush':
        return await this.#channels?.flushed();
      case 'ram-eos':
        return await this.#channels?.sectionEnded();
      case 'section-end':
        if (event.ramPages !== undefined) this.#count(event.ramPages);
        return;
      case 'package':
        throw unsupported('postcopy (command PACKAGED)');
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
        // Our sources ask so whether all is loaded that stands before it.
        await this.#tasks.settled();
        if (command.value === PING_HELLO) await this.#answer(stream.channel, { type: 'PONG', value: PONG_VMFERRY });
        return await this.#answer(stream.channel, { type: 'PONG', value: command.value });
      case 'SWITCHOVER_START':
        for (const { device, state } of this.#channels?.openStates() ?? []) this.#machine.loadBeside?.(device, state);
        return;
      case 'POSTCOPY_ADVISE':
      case 'POSTCOPY_LISTEN':
      case 'POSTCOPY_RUN':
      case 'POSTCOPY_RAM_DISCARD':
      case 'PACKAGED':
      case 'POSTCOPY_RESUME':
      case 'RECV_BITMAP':
        throw unsupported(`postcopy (command ${command.name})`);
      case 'ENABLE_COLO':
        throw unsupported('COLO');
      default:
        unreachable(command);
    }
  }

  #switchoverAcks(machineType: string, channel: Channel): SwitchoverAcks {
    return new SwitchoverAcks({
      legacy: this.#settings.dialect(machineType).switchoverAckLegacy,
      expected: this.#settings.capability('switchover-ack'),
      devices: this.#machine.switchoverAckNeeded ?? [],
      // Whoever cannot be told is gone, which is noticed elsewhere.
      acknowledge: () => void this.#answer(channel, { type: 'SWITCHOVER_ACK' }).catch(() => {}),
    });
  }

  async #answer(channel: Channel, message: ReturnPathMessage): Promise<void> {
    const writer = new Writer(64);
    encodeReturnPathMessage(writer, message);
    await channel.write(writer.bytes());
  }

  /** The machine is here. SHUT 0 is offered as long as the channel lives; whether it arrived shows in the source's orderly close. */
  async #confirm(stream: IncomingStream): Promise<IncomingResult> {
    const { channel } = stream;
    this.#endMs = nowMs();
    let confirmed = true;
    if (stream.sourceListens) {
      try {
        await within(this.#answer(channel, { type: 'SHUT', value: 0 }), CLOSING_DEADLINE_MS, 'SHUT to leave');
        await within(stream.drain(), CLOSING_DEADLINE_MS, 'the source to close');
      } catch {
        confirmed = false;
      }
    }
    this.#channels?.close();
    channel.destroy();
    await channel.closed;
    this.#state.move('completed');
    return { status: 'completed', info: this.info(), confirmed };
  }

  async #giveUp(): Promise<IncomingResult> {
    const error = this.#failure!;
    this.#endMs = nowMs();
    // A machine that was told to start and did not may have devices that run: they end before the guest is given back.
    if (this.#committed && !this.#started) await this.#machine.discard();
    // Early, so that the source knows why its channels end.
    if (this.#stream?.sourceListens) {
      const answered = this.#answer(this.#stream.channel, {
        type: 'SHUT',
        value: this.#started ? 1 : SHUT_NEVER_STARTED,
      });
      await within(answered, CLOSING_DEADLINE_MS, 'SHUT to leave').catch(() => {});
    }
    await this.#channels?.cancel(error);
    if (!this.#committed) await this.#machine.discard();
    await this.#close(error);
    this.#failure = (await this.#options.farFailure?.()) ?? error;
    this.#state.move('failed');
    return { status: 'failed', info: this.info(), error: this.#failure, confirmed: true };
  }

  async #close(error: Error): Promise<void> {
    const channel = this.#channel;
    if (channel === undefined) return;
    if (this.#stream?.sourceListens) {
      await within(channel.end(), CLOSING_DEADLINE_MS, 'the channel to end').catch(() => {});
    }
    channel.destroy(error);
    await channel.closed;
  }
}
