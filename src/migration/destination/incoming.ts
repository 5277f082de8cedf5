import { asError, explain, nowMs, StateMachine, unreachable, Writer } from '../../base/index.ts';
import type { DestinationMachine } from '../../machine/index.ts';
import type { SettingsView } from '../../settings/index.ts';
import type { Channel, Chunk } from '../../transport/index.ts';
import {
  type Command,
  type Configuration,
  encodeReturnPathMessage,
  type RamCounts,
  type RamSink,
  type ReturnPathMessage,
  type StreamEvent,
  StreamInput,
  StreamParser,
} from '../../wire/index.ts';
import { within } from '../deadline.ts';
import { MigrationError, mismatch, unsupported } from '../errors.ts';
import type { MigrationInfo, MigrationStatus } from '../host.ts';
import { SHUT_NEVER_STARTED } from '../return-path.ts';
import { INCOMING_ARCS } from '../status.ts';
import { DirectReceiver } from './direct-receiver.ts';

/** Time for the source to close after SHUT 0, and for a last SHUT on the failure path to leave, ms. */
const CLOSING_DEADLINE_MS = 5_000;
/**
 * A source whose machine has suppress-vmdesc=on sends nothing after EOF and waits for SHUT; the stream does not say so. After this silence
 * the description counts as suppressed, ms.
 */
const SILENCE_MS = 10_000;

export interface IncomingObserver {
  status?(status: MigrationStatus): void;
  /** The machine runs here now. */
  started?(): void;
}

export interface IncomingOptions {
  readonly machine: DestinationMachine;
  readonly settings: SettingsView;
  /** Waits for the source; must end when `signal` aborts. */
  readonly accept: (signal: AbortSignal) => Promise<Channel>;
  readonly observer?: IncomingObserver;
  /** A checkpoint takes a stream of any machine type and any of the checked capabilities. */
  readonly takesAnyMachine: boolean;
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
  #channel: Channel | undefined;
  #sink: RamSink | undefined;
  #failure: Error | undefined;
  #committed = false;
  #returnPath = false;
  #startMs = nowMs();
  #endMs: number | undefined;
  #totalBytes = 0;

  constructor(options: IncomingOptions) {
    this.#options = options;
    this.#machine = options.machine;
    this.#settings = options.settings;
    this.#state = new StateMachine<MigrationStatus>('none', INCOMING_ARCS, ({ to }) => options.observer?.status?.(to));
  }

  get status(): MigrationStatus {
    return this.#state.state;
  }

  /** As query-migrate on a destination: status and error; vmferry adds what has arrived. */
  info(): MigrationInfo {
    const info: MigrationInfo = { status: this.status };
    if (this.#failure !== undefined) info['error-desc'] = explain(this.#failure);
    return info;
  }

  /** What has arrived so far, for progress: bytes of the stream, pages by kind, bytes of guest RAM announced. */
  progress(): {
    readonly bytes: number;
    readonly pages: Readonly<RamCounts>;
    readonly ramTotal: number;
    readonly ms: number;
  } {
    return {
      bytes: this.#channel?.counters.bytesRead ?? 0,
      pages: this.#counts,
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
      this.#channel = await this.#options.accept(this.#abort.signal);
      if (this.#failure !== undefined) throw this.#failure;
      this.#startMs = nowMs();
      this.#state.move('active');
      await this.#load(this.#channel);
      if (this.#failure !== undefined) throw this.#failure;
      await this.#machine.commit();
      this.#committed = true;
      await this.#machine.start();
      this.#options.observer?.started?.();
    } catch (thrown) {
      this.#fail(asError(thrown));
      return await this.#giveUp();
    }
    return await this.#confirm(this.#channel);
  }

  #fail(error: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#abort.abort(error);
  }

  #ended = false;
  /** A read under way: one that outlasted a silence is waited for again. */
  #reading: Promise<Chunk | null> | undefined;

  async #load(channel: Channel): Promise<void> {
    const input = new StreamInput(channel.label);
    const parser = new StreamParser(input.reader, {
      pageSize: this.#machine.targetPageSize,
      measureDevice: (section, bytes) => this.#machine.measureDevice(section, bytes),
    });
    let direct: DirectReceiver | undefined;
    for (;;) {
      const event = parser.next();
      if (event !== undefined) {
        await this.#take(event, parser, channel);
        if (event.kind === 'ram-blocks') {
          direct = DirectReceiver.of(channel, this.#sink!, parser, input, this.#machine.targetPageSize);
        }
        if (this.#failure !== undefined) throw this.#failure;
        if (event.kind === 'description') return;
        this.#ended = event.kind === 'eof';
        continue;
      }
      if (parser.finished) break;
      input.release();
      const waiting = channel.tryRead();
      if (waiting === undefined && direct?.receive() === true) continue;
      direct?.chunkRead();
      const chunk = waiting ?? (await this.#read(channel));
      if (chunk === 'silence') {
        // A description that has begun is not suppressed: the link has come to a stop in it.
        if (this.#ended && input.reader.available === 0) break;
        parser.assumeSilent();
      } else if (chunk !== null) {
        input.add(chunk);
      } else if (this.#ended && this.#returnPath) {
        // Whoever listens for SHUT and leaves before the description is gone: its guest goes on there (qemu-wire fact 5).
        throw new MigrationError(
          { code: 'MIGRATION_PEER_GONE', phase: 'description' },
          `${channel.label}: the source closed the connection before the description, at offset ${input.reader.offset}`,
        );
      } else input.finish();
    }
    await this.#machine.describe('');
  }

  /** The next chunk; 'silence' if a source that may wait for us has said nothing for a while. */
  async #read(channel: Channel): Promise<Chunk | null | 'silence'> {
    this.#reading ??= channel.read().finally(() => {
      this.#reading = undefined;
    });
    if (!this.#returnPath) return await this.#reading;
    return await within(this.#reading, SILENCE_MS, 'more of the stream').catch((error: unknown) => {
      if (error instanceof MigrationError && error.code === 'MIGRATION_DEADLINE') return 'silence' as const;
      throw error;
    });
  }

  async #take(event: StreamEvent, parser: StreamParser, channel: Channel): Promise<void> {
    switch (event.kind) {
      case 'header':
      case 'section-begin':
      case 'multifd-flush':
      case 'eof':
        return;
      case 'configuration':
        this.#checkConfiguration(event.configuration);
        return await this.#machine.configure(event.configuration);
      case 'command':
        return await this.#command(event.command, channel);
      case 'ram-blocks': {
        if (event.blocks.some((block) => block.mapped !== undefined))
          throw unsupported('a mapped-ram stream over a channel');
        this.#totalBytes = event.totalBytes;
        const ignoreShared = event.blocks.some((block) => block.guestAddress !== undefined);
        this.#sink = await this.#machine.prepareRam(event.blocks, { ignoreShared });
        parser.setRamSink(this.#sink);
        return;
      }
      case 'ram-batch':
        this.#count(event.pages);
        return await this.#machine.drain();
      case 'section-end':
        if (event.ramPages !== undefined) this.#count(event.ramPages);
        return;
      case 'device':
        return await this.#machine.loadDevice(event.section, event.body);
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

  /** What QEMU checks too: machine type, uuid and the capabilities that change the stream (savevm.c: configuration_validate_capabilities). */
  #checkConfiguration(configuration: Configuration): void {
    const own = this.#machine.machineType;
    if (own !== undefined && own !== configuration.machineType) {
      throw mismatch('machine type', own, configuration.machineType);
    }
    if (this.#options.takesAnyMachine) return;
    const theirs = configuration.capabilities ?? [];
    for (const name of ['x-ignore-shared', 'mapped-ram'] as const) {
      const mine = this.#settings.capability(name);
      if (mine !== theirs.includes(name)) {
        throw mismatch(`capability ${name}`, mine ? 'on' : 'off', mine ? 'off' : 'on');
      }
    }
    const uuid = this.#machine.uuid;
    if (configuration.uuid !== undefined && uuid !== undefined && !configuration.uuid.equals(uuid)) {
      throw mismatch('uuid', Buffer.from(uuid).toString('hex'), configuration.uuid.toString('hex'));
    }
  }

  async #command(command: Command, channel: Channel): Promise<void> {
    switch (command.name) {
      case 'OPEN_RETURN_PATH':
        this.#returnPath = true;
        return;
      case 'PING':
        if (!this.#returnPath) throw unsupported('PING before OPEN_RETURN_PATH');
        return await this.#answer(channel, { type: 'PONG', value: command.value });
      case 'SWITCHOVER_START':
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

  async #answer(channel: Channel, message: ReturnPathMessage): Promise<void> {
    const writer = new Writer(64);
    encodeReturnPathMessage(writer, message);
    await channel.write(writer.bytes());
  }

  /** The machine is here. SHUT 0 is offered as long as the channel lives; whether it arrived shows in the source's orderly close. */
  async #confirm(channel: Channel): Promise<IncomingResult> {
    this.#endMs = nowMs();
    let confirmed = true;
    if (this.#returnPath) {
      try {
        await within(this.#answer(channel, { type: 'SHUT', value: 0 }), CLOSING_DEADLINE_MS, 'SHUT to leave');
        await within(drainToEnd(channel), CLOSING_DEADLINE_MS, 'the source to close');
      } catch {
        confirmed = false;
      }
    }
    channel.destroy();
    await channel.closed;
    this.#state.move('completed');
    return { status: 'completed', info: this.info(), confirmed };
  }

  async #giveUp(): Promise<IncomingResult> {
    const error = this.#failure!;
    this.#endMs = nowMs();
    const channel = this.#channel;
    if (!this.#committed) await this.#machine.discard();
    if (channel !== undefined) {
      if (this.#returnPath) {
        const value = this.#committed ? 1 : SHUT_NEVER_STARTED;
        await within(this.#answer(channel, { type: 'SHUT', value }), CLOSING_DEADLINE_MS, 'SHUT to leave').catch(
          () => {},
        );
        await within(channel.end(), CLOSING_DEADLINE_MS, 'the channel to end').catch(() => {});
      }
      channel.destroy(error);
      await channel.closed;
    }
    this.#state.move('failed');
    return { status: 'failed', info: this.info(), error, confirmed: true };
  }
}

/** Reads what may still come, until the orderly end. */
async function drainToEnd(channel: Channel): Promise<void> {
  while ((await channel.read()) !== null);
}
