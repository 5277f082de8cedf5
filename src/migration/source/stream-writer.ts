import { Writer } from '../../base/index.ts';
import type { DeviceSection, SavedDevices, SourceIterable, SourceMachine } from '../../machine/index.ts';
import type { CompatProfile } from '../../settings/index.ts';
import type { ChannelOutput } from '../../transport/index.ts';
import {
  type Command,
  encodeCommand,
  encodeConfiguration,
  encodeDescription,
  encodeEndOfStream,
  encodeHeader,
  encodeMultifdFlush,
  encodeRamBlockList,
  encodeRamEos,
  encodeSectionBegin,
  encodeSectionFooter,
  RAM_SECTION_VERSION,
  type SectionKind,
} from '../../wire/index.ts';

/** The parallel channels, as far as the main stream must know of them. */
export interface MeetingChannels {
  /**
   * Where they meet: at the end of every section of RAM (machine types up to 8.0), or between rounds, marked by MULTIFD_FLUSH; or between rounds
   * without a mark, where nobody receives them (mapped-ram).
   */
  readonly discipline: 'section' | 'round' | 'unseen round';
  /**
   * A SYNC packet on every channel, behind all pages so far. Resolves when the kernel has taken them, or all those pages are in their place; throws
   * what has ended the channels.
   */
  sync(): Promise<void>;
}

/** Pieces larger than this are handed over in parts, so that a big device never needs a second copy of itself. */
const WRITER_HINT = 1024;
/** Page size of the hosts that we run on, bytes. */
const HOST_PAGE_SIZE = 4096;

/**
 * Writes the main stream in the order that QEMU expects (qemu-wire 1.4): header, configuration, early devices, START, PART ..., END,
 * FULL, EOF, description. Knows section ids; decides nothing.
 */
export class StreamWriter {
  readonly #machine: SourceMachine;
  #output: ChannelOutput;
  readonly #profile: CompatProfile;
  readonly #writer = new Writer(WRITER_HINT);
  /** Never 0: QEMU finds PART and END by id among all devices, and those it has not loaded yet have id 0 (savevm.c find by load_section_id). */
  #nextId = 1;
  #ramId = 0;
  #others: { readonly iterable: SourceIterable; readonly id: number }[] = [];
  #description: string | undefined;
  #channels: MeetingChannels | undefined;

  constructor(machine: SourceMachine, output: ChannelOutput, profile: CompatProfile) {
    this.#machine = machine;
    this.#output = output;
    this.#profile = profile;
  }

  /** Before `start`: RAM travels on these channels. */
  join(channels: MeetingChannels): void {
    this.#channels = channels;
  }

  /** Header, configuration and, with a return path, its opening. */
  async begin(options: {
    readonly ignoreShared: boolean;
    readonly uuid: Uint8Array | undefined;
    /** Opens the return path and sends this PING. */
    readonly ping?: number;
    /** Announces postcopy (POSTCOPY_ADVISE). */
    readonly postcopy: boolean;
  }): Promise<void> {
    encodeHeader(this.#writer);
    encodeConfiguration(this.#writer, {
      machineType: this.#machine.machineType,
      targetPageBits: undefined,
      capabilities: options.ignoreShared ? ['x-ignore-shared'] : undefined,
      uuid: options.uuid === undefined ? undefined : Buffer.from(options.uuid),
    });
    await this.#put();
    if (options.ping !== undefined) {
      await this.command({ name: 'OPEN_RETURN_PATH' });
      await this.ping(options.ping);
    }
    if (options.postcopy) {
      const { targetPageSize, ram } = this.#machine;
      const summary = ram.reduce((sum, { pageSize }) => sum | BigInt(pageSize), 0n);
      await this.command({ name: 'POSTCOPY_ADVISE', pageSizes: { summary, target: BigInt(targetPageSize) } });
    }
  }

  ping(value: number): Promise<void> {
    return this.command({ name: 'PING', value });
  }

  async command(command: Command): Promise<void> {
    encodeCommand(this.#writer, command);
    await this.#put();
  }

  /** START sections: RAM's block list, then the other iterables in registration order. With `postcopy` unusual page sizes are told. */
  async start({
    ignoreShared,
    postcopy,
    switchoverAck,
  }: {
    readonly ignoreShared: boolean;
    readonly postcopy: boolean;
    readonly switchoverAck: boolean;
  }): Promise<void> {
    const usualPageSize = Math.max(HOST_PAGE_SIZE, this.#machine.targetPageSize);
    for (const section of this.#machine.earlyDevices ?? []) await this.#device(section);
    this.#ramId = this.#nextId++;
    this.#begin('start', this.#ramId, { idstr: 'ram', instance: 0, version: RAM_SECTION_VERSION });
    encodeRamBlockList(
      this.#writer,
      this.#machine.ram.map(({ idstr, usedLength, pageSize, guestAddress }) => ({
        idstr,
        usedLength,
        ...(postcopy && pageSize !== usualPageSize ? { pageSize } : {}),
        ...(ignoreShared ? { guestAddress } : {}),
      })),
    );
    await this.meet();
    await this.endRam();
    for (const iterable of this.#machine.iterables) {
      const other = { iterable, id: this.#nextId++ };
      this.#others.push(other);
      this.#begin('start', other.id, iterable);
      await this.#body(other.id, await iterable.setup({ switchoverAck }));
    }
  }

  /** Opens a PART or END section of RAM; page records may follow, then `endRam`. */
  async beginRam(kind: 'part' | 'end'): Promise<void> {
    this.#begin(kind, this.#ramId);
    await this.#put();
  }

  /** EOS and footer of a RAM section. */
  async endRam(): Promise<void> {
    const point = this.#channels?.discipline === 'section';
    if (point) await this.#channels?.sync();
    encodeRamEos(this.#writer);
    encodeSectionFooter(this.#writer, this.#ramId);
    await this.#put();
    if (point) await this.#output.flush();
  }

  /** Inside a RAM section: what is sent from now on comes behind all that was sent so far, on whatever channel. */
  async meet(): Promise<void> {
    if (this.#channels === undefined || this.#channels.discipline === 'section') return;
    await this.#channels.sync();
    if (this.#channels.discipline === 'unseen round') return;
    encodeMultifdFlush(this.#writer);
    await this.#put();
    // The channels stand still at the destination until the mark is there.
    await this.#output.flush();
  }

  /** The same between sections. */
  async endRound(): Promise<void> {
    if (this.#channels === undefined || this.#channels.discipline === 'section') return;
    if (this.#channels.discipline === 'unseen round') return await this.meet();
    await this.beginRam('part');
    await this.meet();
    await this.endRam();
  }

  /** Bytes that the other iterables still have to send, all and the one with most, as they know, or (`exact`) ask for again. */
  async pendingOthers(exact: boolean): Promise<{ readonly all: number; readonly most: number }> {
    let all = 0;
    let most = 0;
    for (const { iterable } of this.#others) {
      const { precopy, stopCopy } = await iterable.pending(exact);
      all += precopy + stopCopy;
      most = Math.max(most, precopy + stopCopy);
    }
    return { all, most };
  }

  /** Returns whether there was anything to send. `mayAnnounce`: which of them may say that their initial data is out. */
  async iterateOthers(mayAnnounce: (iterable: SourceIterable) => boolean = () => false): Promise<boolean> {
    let sent = false;
    for (const { iterable, id } of this.#others) {
      const body = await iterable.iterate(mayAnnounce(iterable));
      if (body === undefined) continue;
      this.#begin('part', id);
      await this.#body(id, body);
      sent = true;
    }
    return sent;
  }

  async completeOthers(): Promise<void> {
    for (const { iterable, id } of this.#others) {
      this.#begin('end', id);
      await this.#put();
      await iterable.complete((bytes) => this.#output.put(bytes));
      encodeSectionFooter(this.#writer, id);
      await this.#put();
    }
  }

  /** Before the END sections, guest stopped; only towards peers that know it (machine types from 10.0). */
  async switchoverStart(): Promise<void> {
    if (this.#profile.sendSwitchoverStart) await this.command({ name: 'SWITCHOVER_START' });
  }

  /** FULL sections of all devices, guest stopped. */
  async devices(): Promise<void> {
    const saved: SavedDevices = await this.#machine.saveDevices();
    for (const section of saved.sections) await this.#device(section);
    this.#description = saved.description;
  }

  /** EOF and description: the commit point (see OutgoingMigration). An empty description is valid; none at all is not. */
  async finish(): Promise<void> {
    encodeEndOfStream(this.#writer);
    encodeDescription(this.#writer, this.#description ?? '');
    await this.#put();
  }

  /**
   * POSTCOPY_LISTEN, all devices, a PING for each of `pings`, POSTCOPY_RUN: what the destination of a postcopy reads as a whole and then does.
   */
  async package(pings: readonly number[]): Promise<Buffer> {
    const { sections } = await this.#machine.saveDevices();
    const writer = new Writer(sections.reduce((sum, { body }) => sum + body.length + WRITER_HINT, WRITER_HINT));
    encodeCommand(writer, { name: 'POSTCOPY_LISTEN' });
    for (const section of sections) {
      const { idstr, instance, version, body } = section;
      const id = this.#idOf(section);
      encodeSectionBegin(writer, { kind: 'full', id, idstr, instance, version });
      writer.raw(body);
      encodeSectionFooter(writer, id);
    }
    for (const value of pings) encodeCommand(writer, { name: 'PING', value });
    encodeCommand(writer, { name: 'POSTCOPY_RUN' });
    return writer.bytes();
  }

  /** The end of a postcopy: RAM has nothing more to send, EOF. There is no description. */
  async finishPostcopy(): Promise<void> {
    this.#begin('end', this.#ramId);
    encodeRamEos(this.#writer);
    encodeSectionFooter(this.#writer, this.#ramId);
    encodeEndOfStream(this.#writer);
    await this.#put();
  }

  /** The stream goes on over another channel (postcopy recovery), with the same sections. */
  moveTo(output: ChannelOutput): void {
    this.#writer.clear();
    this.#output = output;
  }

  /** What belongs to an iterable section goes under its id. */
  #idOf(section: DeviceSection): number {
    const own = this.#others.find(
      ({ iterable }) => iterable.idstr === section.idstr && iterable.instance === section.instance,
    );
    return own?.id ?? this.#nextId++;
  }

  async #device(section: DeviceSection): Promise<void> {
    const id = this.#idOf(section);
    this.#begin('full', id, section);
    await this.#body(id, section.body);
  }

  #begin(kind: SectionKind, id: number, name?: { idstr: string; instance: number; version: number }): void {
    encodeSectionBegin(this.#writer, { kind, id, idstr: '', instance: 0, version: 0, ...pick(name) });
  }

  async #body(id: number, body: Uint8Array): Promise<void> {
    await this.#put();
    await this.#output.put(body);
    encodeSectionFooter(this.#writer, id);
    await this.#put();
  }

  async #put(): Promise<void> {
    await this.#output.put(this.#writer.bytes());
    this.#writer.clear();
  }
}

function pick(name: { idstr: string; instance: number; version: number } | undefined) {
  return name === undefined ? {} : { idstr: name.idstr, instance: name.instance, version: name.version };
}
