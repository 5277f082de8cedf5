import { unreachable } from '../../base/index.ts';
import type { DestinationMachine, IncomingRam, LoadOrder, SectionName } from '../../machine/index.ts';
import { CAPABILITIES, isKnownTo, isVersionBefore, machineVersion, type SettingsView } from '../../settings/index.ts';
import type { Command, RamCounts, StreamEvent } from '../../wire/index.ts';
import { unlessAborted } from '../deadline.ts';
import { mismatch, unsupported, wrongState } from '../errors.ts';
import type { AdvisedPages } from '../postcopy/destination/late-pages.ts';
import { PostcopyDestination, type PostcopyDestinationParts } from '../postcopy/destination/postcopy-destination.ts';
import { loadCostWords, PING_HELLO, PING_LOAD_COST, PONG_VMFERRY } from '../return-path.ts';
import { NO_CHANNELS } from '../statistics.ts';
import { checkConfiguration } from './check-configuration.ts';
import type { IncomingStream } from './incoming-stream.ts';
import { answer } from './last-words.ts';
import type { LoadTasks } from './load-tasks.ts';
import type { RamChannels } from './ram-channels.ts';
import { SwitchoverAcks } from './switchover-acks.ts';

/** What has come: bytes of all connections, pages by kind; and the bytes of guest RAM that are announced. */
export interface Arrived {
  readonly bytes: number;
  readonly pages: Readonly<RamCounts>;
  readonly ramTotal: number;
}

export const NOTHING: Arrived = { bytes: 0, pages: { normal: 0, zero: 0, xbzrle: 0, xbzrleBytes: 0 }, ramTotal: 0 };

export interface StreamLoaderParts
  extends Pick<PostcopyDestinationParts, 'listener' | 'preemptChannels' | 'status' | 'move' | 'waitsFor'> {
  readonly machine: DestinationMachine;
  /** As both ends use them. */
  readonly settings: SettingsView;
  readonly stream: IncomingStream;
  /** With multifd. */
  readonly channels: RamChannels | undefined;
  /** Loading that goes on beside the stream. */
  readonly tasks: LoadTasks;
  readonly takesAnyMachine: boolean;
  readonly prepared: ((ram: IncomingRam) => void) | undefined;
  /** Whether the source lets the device prepare itself, as far as it has told. */
  readonly prepares: (device: SectionName) => boolean;
  /** Of the migration's end, with its reason. */
  readonly signal: AbortSignal;
  /** The machine takes over what has come, and goes on. */
  readonly adopt: () => Promise<void>;
}

/** Reads the main stream element by element and puts each where it belongs: to the machine, to the channels beside it, or back as an answer. */
export class StreamLoader {
  readonly #parts: StreamLoaderParts;
  readonly #counts: RamCounts = { ...NOTHING.pages };
  #totalBytes = 0;
  #machineType = '';
  /** Sources of the stream's dialect leave the TLS sessions of their channels without an end. */
  #cutIsEnd = true;
  /** Once the machine type is known. */
  #acks: SwitchoverAcks | undefined;
  #loadCostTold: Promise<void> | undefined;
  /** What POSTCOPY_ADVISE has said; with it the migration may become a postcopy. */
  #advised: AdvisedPages | undefined;
  #postcopy: PostcopyDestination | undefined;

  constructor(parts: StreamLoaderParts) {
    this.#parts = parts;
  }

  /** Of a stream that may become a postcopy, from its block list on. */
  get postcopy(): PostcopyDestination | undefined {
    return this.#postcopy;
  }

  get arrived(): Arrived {
    const channels = this.#parts.channels?.totals ?? NO_CHANNELS;
    const urgent = this.#postcopy?.urgentTotals ?? NO_CHANNELS;
    const { normal, zero, ...differences } = this.#counts;
    return {
      bytes: this.#parts.stream.bytesRead + channels.bytes + urgent.bytes,
      pages: {
        normal: normal + channels.normalPages + urgent.normalPages,
        zero: zero + channels.zeroPages + urgent.zeroPages,
        ...differences,
      },
      ramTotal: this.#totalBytes,
    };
  }

  initialDataLoaded(device: SectionName): void {
    this.#acks?.loaded(device);
  }

  /** To the end of the stream, or of the postcopy that it has become. Returns whether the stream has described itself. */
  async load(): Promise<boolean> {
    const { stream, signal } = this.#parts;
    let described = false;
    for (let event = await stream.next(); event !== undefined; event = await stream.next()) {
      await this.#take(event);
      signal.throwIfAborted();
      if (event.kind === 'package') break;
      described = event.kind === 'description';
    }
    return described;
  }

  async #take(event: StreamEvent): Promise<void> {
    const { machine, settings, tasks, channels, stream } = this.#parts;
    switch (event.kind) {
      case 'header':
      case 'section-begin':
      case 'eof':
        return;
      case 'configuration':
        this.#machineType = event.configuration.machineType;
        this.#cutIsEnd = !settings.dialect(event.configuration.machineType).multifdCleanTlsTermination;
        checkConfiguration(event.configuration, machine, settings, this.#parts.takesAnyMachine);
        await machine.configure(event.configuration, tasks);
        this.#acks = this.#switchoverAcks(event.configuration.machineType);
        return;
      case 'command':
        return await this.#command(event.command);
      case 'ram-blocks': {
        if (event.blocks.some((block) => block.mapped !== undefined))
          throw unsupported('a mapped-ram stream over a channel');
        this.#totalBytes = event.totalBytes;
        const ignoreShared = event.blocks.some((block) => block.guestAddress !== undefined);
        const ram = await machine.prepareRam(event.blocks, { ignoreShared });
        this.#parts.prepared?.(ram);
        await channels?.start(ram.share(), machine.besideDevices ?? [], this.#cutIsEnd);
        if (this.#advised !== undefined) {
          const advised = { ram, blocks: event.blocks, advised: this.#advised };
          this.#postcopy = new PostcopyDestination(this.#postcopyParts(), advised);
        }
        return stream.setRamSink(this.#postcopy?.sink ?? ram);
      }
      case 'ram-batch':
        this.#count(event.pages);
        return await machine.drain();
      case 'multifd-flush':
        return await this.#unlessFailed(channels?.flushed());
      case 'ram-eos':
        return await this.#unlessFailed(channels?.sectionEnded());
      case 'section-end':
        if (event.ramPages !== undefined) this.#count(event.ramPages);
        return;
      case 'package':
        return await this.#postcopyBegun.run(event);
      case 'device':
        return await machine.loadDevice(event.section, event.body);
      case 'vfio':
        await machine.loadElement(event.section, event.element);
        if (settings.parameter('x-device-config-load') === 'serial') await tasks.settled();
        return;
      case 'description':
        return await machine.describe(event.text);
      default:
        unreachable(event);
    }
  }

  /** For a wait that whoever fails does not end. */
  async #unlessFailed(wait: Promise<void> | undefined): Promise<void> {
    if (wait !== undefined) await unlessAborted(wait, this.#parts.signal);
  }

  #postcopyParts(): PostcopyDestinationParts {
    const { machine, tasks, adopt, ...parts } = this.#parts;
    return {
      ...parts,
      machine,
      loadDevice: (event) => this.#take(event),
      start: async () => {
        await tasks.settled();
        await machine.describe('');
        await adopt();
      },
      count: (pages) => this.#count(pages),
    };
  }

  get #postcopyBegun(): PostcopyDestination {
    if (this.#postcopy === undefined) throw wrongState(this.#parts.status(), 'there is no postcopy under way');
    return this.#postcopy;
  }

  #count(pages: RamCounts): void {
    this.#counts.normal = pages.normal;
    this.#counts.zero = pages.zero;
    this.#counts.xbzrle = pages.xbzrle;
    this.#counts.xbzrleBytes = pages.xbzrleBytes;
  }

  async #command(command: Command): Promise<void> {
    const { machine, settings, tasks, channels, stream } = this.#parts;
    switch (command.name) {
      case 'OPEN_RETURN_PATH':
        stream.sourceListens = true;
        this.#acks?.returnPathOpened();
        return;
      case 'PING':
        if (!stream.sourceListens) throw unsupported('PING before OPEN_RETURN_PATH');
        if (command.value === PING_LOAD_COST) return await this.#tellLoadCost();
        // Our sources ask so whether all is loaded that stands before it.
        await tasks.settled();
        if (command.value === PING_HELLO) await answer(stream.channel, { type: 'PONG', value: PONG_VMFERRY });
        return await answer(stream.channel, { type: 'PONG', value: command.value });
      case 'SWITCHOVER_START':
        for (const { device, state } of channels?.openStates() ?? []) machine.loadBeside?.(device, state);
        return;
      case 'PACKAGED':
        return;
      case 'POSTCOPY_ADVISE':
        if (command.pageSizes === undefined) throw unsupported('capability dirty-bitmaps');
        if (!settings.capability('postcopy-ram')) throw mismatch('capability postcopy-ram', 'off', 'on');
        // 8.2 to 10.0 do not begin it, and those before go on meeting on channels that nobody uses any more.
        if (channels !== undefined && isVersionBefore(machineVersion(this.#machineType) ?? '8.2', '8.2'))
          throw unsupported(`multifd with postcopy-ram from ${this.#machineType} (QEMU does it from 10.1 on)`);
        this.#advised = command.pageSizes;
        return;
      case 'POSTCOPY_RAM_DISCARD':
        return this.#postcopyBegun.discard(command);
      case 'POSTCOPY_LISTEN':
      case 'POSTCOPY_RUN':
      case 'POSTCOPY_RESUME':
      case 'RECV_BITMAP':
        throw unsupported(`${command.name} outside of a package`);
      case 'ENABLE_COLO':
        throw unsupported('capability x-colo');
      default:
        unreachable(command);
    }
  }

  /** Beside the stream: a device that is at work answers when it is through. Whoever cannot be told, or cannot tell, is noticed elsewhere. */
  async #tellLoadCost(): Promise<void> {
    const { machine, settings, stream } = this.#parts;
    const { channel } = stream;
    // One at a time: a source that asks and asks is not read any further.
    await this.#loadCostTold;
    const tell = async () => {
      const cost = await machine.loadCost?.(loadOrderOf(settings));
      const words = cost === undefined ? [] : loadCostWords(cost);
      for (const value of [...words, PING_LOAD_COST]) await answer(channel, { type: 'PONG', value });
    };
    this.#loadCostTold = tell().catch(() => {});
  }

  #switchoverAcks(machineType: string): SwitchoverAcks {
    const { machine, settings, stream, prepares } = this.#parts;
    const { channel } = stream;
    return new SwitchoverAcks({
      legacy: settings.dialect(machineType).switchoverAckLegacy,
      // Whoever knows the capability may wait for a word though it is off here, and does not mind one that it does not wait for. Of a machine type from before
      // nobody can tell: whoever has switched it on here says that the source knows it. A QEMU 7.2 breaks the migration off at that word.
      expected: settings.capability('switchover-ack') || isKnownTo(machineType, CAPABILITIES['switchover-ack']),
      devices: (machine.switchoverAckNeeded ?? []).filter(prepares),
      // Whoever cannot be told is gone, which is noticed elsewhere.
      acknowledge: () => void answer(channel, { type: 'SWITCHOVER_ACK' }).catch(() => {}),
    });
  }
}

/** In which devices are loaded. With parallel channels `serial` is their configurations only. */
export function loadOrderOf(settings: SettingsView): LoadOrder {
  const order = settings.parameter('x-device-config-load');
  return order === 'serial' && !settings.capability('multifd') ? 'in line' : order;
}
