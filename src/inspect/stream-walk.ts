/** One pass over a stream, from its first byte to its last or to the damage: events become entries of the report. */
import { FerryError, unreachable } from '../base/index.ts';
import {
  type Command,
  type Configuration,
  decodeBody,
  globalState,
  type MeasureDevice,
  pageSizeOf,
  SECTION_FOOTER_BYTES,
  type SectionHeader,
  type StreamEvent,
  StreamInput,
  StreamParser,
  uuidText,
} from '../wire/index.ts';
import { damageOf } from './damage.ts';
import { Ledger } from './ledger.ts';
import { RamWalk } from './ram-walk.ts';
import {
  COMMANDS_LISTED_MAX,
  type Damage,
  type Report,
  type ReportedCommand,
  type ReportedConfiguration,
  type ReportedSection,
} from './report.ts';
import type { ByteSource } from './source.ts';

/** Room in front of each chunk for what the parser left of the one before, bytes. */
const HEADROOM = 8 * 1024;
const CHUNK = 1024 * 1024;

export class StreamWalk {
  readonly #source: ByteSource;
  readonly #offset: number;
  readonly #parser: StreamParser;
  readonly #input: StreamInput;
  readonly #ledger = new Ledger();
  readonly #ram: RamWalk;
  readonly #commands: ReportedCommand[] = [];
  #commandCount = 0;
  /** The entry that further PARTs of a section are added to. */
  readonly #parts = new Map<number, ReportedSection>();
  #configuration: Configuration | undefined;
  #runState: string | undefined;
  /** Offset of the ram section that is open, and how far its inside is known. */
  #ramSection: { readonly offset: number; inside: 'block list' | 'records' } | undefined;
  /** A VFIO device's section that is open. */
  #vfioSection: { readonly offset: number; readonly bodyOffset: number } | undefined;
  #xbzrleBytes = 0;

  readonly sections: ReportedSection[] = [];
  eofOffset: number | undefined;
  description: { readonly offset: number; readonly bytes: number; readonly text: string } | undefined;
  damage: Damage | undefined;

  constructor(source: ByteSource, offset: number, measureDevice?: MeasureDevice) {
    this.#source = source;
    this.#offset = offset;
    this.#input = new StreamInput(source.name, { origin: offset });
    this.#parser = new StreamParser(this.#input.reader, measureDevice === undefined ? {} : { measureDevice });
    this.#ram = new RamWalk(source, this.#ledger);
  }

  /** Reads the stream. Throws only what the source throws: a damaged stream is a result. */
  async run(): Promise<void> {
    const { size } = this.#source;
    this.#ledger.to(Math.min(this.#offset, size), 'before');
    try {
      await this.#drive();
    } catch (thrown) {
      this.damage = damageOf(thrown);
      await this.#enterIncomplete(Math.min(this.damage.offset, size));
    }
    this.#ledger.skip(size);
  }

  get report() {
    const configuration = this.#configuration;
    const ram = this.#ram.report;
    return {
      format: configuration?.capabilities?.includes('mapped-ram') ? 'mapped-ram' : 'stream',
      ...(configuration !== undefined && { configuration: reportConfiguration(configuration) }),
      ...(this.#runState !== undefined && { runState: this.#runState }),
      commands: this.#commands,
      commandCount: this.#commandCount,
      sections: this.sections,
      ...(ram !== undefined && { ram }),
      ...this.#ledger.result,
    } as const satisfies Partial<Report>;
  }

  async #drive(): Promise<void> {
    const { size } = this.#source;
    const reader = this.#input.reader;
    const chunk = Buffer.allocUnsafeSlow(HEADROOM + CHUNK);
    while (!this.#parser.finished) {
      const event = this.#parser.next();
      if (event !== undefined) {
        const reading = this.#take(event);
        if (reading !== undefined) await reading;
        continue;
      }
      // Regions of mapped-ram are not read; one that reaches past the end of the file is missed there.
      const skipTo = Math.min(this.#parser.skipTo ?? 0, size);
      if (skipTo > reader.offset) this.#input.seek(skipTo);
      this.#input.release();
      const count = await this.#source.read(reader.offset + reader.available, chunk.subarray(HEADROOM));
      if (count > 0) this.#input.add({ bytes: chunk, start: HEADROOM, end: HEADROOM + count });
      else this.#input.finish();
    }
  }

  /** Most events are taken at once; a stream may have a million. */
  #take(event: StreamEvent): Promise<void> | undefined {
    const ledger = this.#ledger;
    const end = event.offset + event.length;
    switch (event.kind) {
      case 'header':
        ledger.to(end, 'header');
        return undefined;
      case 'configuration':
        this.#configuration = event.configuration;
        ledger.to(end, 'configuration');
        return undefined;
      case 'command':
        this.#takeCommand(event.offset, event.command);
        ledger.to(end, 'commands');
        return undefined;
      case 'section-begin':
        if (event.section.idstr === 'ram') {
          this.#ramSection = {
            offset: event.offset,
            inside: event.section.kind === 'start' ? 'block list' : 'records',
          };
        } else this.#vfioSection = { offset: event.offset, bodyOffset: end };
        ledger.to(end, 'sectionHeaders');
        return undefined;
      case 'vfio':
        ledger.to(end, event.section.kind === 'full' ? 'devices' : 'iterables');
        return undefined;
      case 'ram-blocks':
        return this.#takeRamBlocks(end, event.totalBytes);
      case 'multifd-flush':
        this.#ram.multifdFlushes++;
        return undefined;
      case 'ram-eos':
        return undefined;
      case 'ram-batch':
        this.#xbzrleBytes = event.pages.xbzrleBytes;
        return undefined;
      case 'section-end':
        if (this.#vfioSection !== undefined) {
          const { offset, bodyOffset } = this.#vfioSection;
          ledger.to(end, 'sectionFooters');
          this.#addSection(event.section, offset, end, { bodyOffset, bodyBytes: event.offset - bodyOffset });
          this.#vfioSection = undefined;
          return undefined;
        }
        this.#xbzrleBytes = event.ramPages?.xbzrleBytes ?? 0;
        this.#ram.enterRecords(event.offset, this.#xbzrleBytes, 'ramRecords');
        ledger.to(end, 'sectionFooters');
        this.#addSection(event.section, this.#ramSection!.offset, end);
        this.#ramSection = undefined;
        return undefined;
      case 'device':
        ledger.to(event.bodyOffset, 'sectionHeaders');
        ledger.to(end - SECTION_FOOTER_BYTES, event.section.kind === 'full' ? 'devices' : 'iterables');
        ledger.to(end, 'sectionFooters');
        this.#addSection(event.section, event.offset, end, {
          bodyOffset: event.bodyOffset,
          bodyBytes: event.body.length,
        });
        if (event.section.idstr === globalState.name) this.#runState = runStateIn(event.section, event.body);
        return undefined;
      case 'package':
        // Only a parser that was asked for packages as a whole gives them; this one goes through their elements.
        return undefined;
      case 'eof':
        this.eofOffset = event.offset;
        ledger.to(end, 'eof');
        return undefined;
      case 'description':
        this.description = { offset: event.offset, bytes: event.length, text: event.text };
        ledger.to(end, 'description');
        return undefined;
      default:
        return unreachable(event);
    }
  }

  async #takeRamBlocks(end: number, totalBytes: number): Promise<void> {
    this.#parser.setRamSink(await this.#takeBlocks(end, totalBytes));
    this.#ledger.to(end, 'ramBlockList');
    this.#ramSection!.inside = 'records';
  }

  #takeBlocks(end: number, totalBytes: number) {
    return this.#ram.takeBlocks(this.#parser.ramBlocks, totalBytes, this.#pageSize, end);
  }

  #takeCommand(offset: number, command: Command): void {
    this.#commandCount++;
    if (this.#commands.length === COMMANDS_LISTED_MAX) return;
    this.#commands.push({ offset, name: command.name, detail: commandDetail(command) });
  }

  #addSection(
    section: SectionHeader,
    offset: number,
    end: number,
    body: { readonly bodyOffset?: number; readonly bodyBytes?: number } = {},
  ): void {
    const before = section.kind === 'part' ? this.#parts.get(section.id) : undefined;
    if (before !== undefined) {
      before.bytes += end - offset;
      before.count++;
      return;
    }
    const entry: ReportedSection = { ...section, offset, bytes: end - offset, count: 1, ...body };
    if (section.kind === 'part') this.#parts.set(section.id, entry);
    this.sections.push(entry);
  }

  /** The element that is damaged at `end`, as far as it goes. */
  async #enterIncomplete(end: number): Promise<void> {
    if (end < this.#ledger.position) return;
    if (this.#ramSection?.inside === 'block list') await this.#takeBlocks(end, this.#parser.ramBytes);
    if (this.#ramSection?.inside === 'records') this.#ram.enterRecords(end, this.#xbzrleBytes, 'incomplete');
    this.#ledger.to(end, 'incomplete');
  }

  get #pageSize(): number {
    return pageSizeOf(this.#configuration?.targetPageBits);
  }
}

function reportConfiguration(configuration: Configuration): ReportedConfiguration {
  const { machineType, targetPageBits, capabilities, uuid } = configuration;
  return {
    machineType,
    pageSize: pageSizeOf(targetPageBits),
    capabilities: capabilities ?? [],
    ...(uuid !== undefined && { uuid: uuidText(uuid) }),
  };
}

function commandDetail({ name, ...payload }: Command): string {
  const show = (value: unknown): string => {
    if (Array.isArray(value)) return `${value.length} ranges`;
    if (typeof value === 'object' && value !== null) return Object.values(value).map(show).join('/');
    return String(value);
  };
  return Object.entries(payload)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => `${key}=${show(value)}`)
    .join(' ');
}

function runStateIn(section: SectionHeader, body: Buffer): string | undefined {
  try {
    return decodeBody(globalState, section.version, body).runstate;
  } catch (thrown) {
    // Another layout than ours: the section table still shows it.
    if (thrown instanceof FerryError) return undefined;
    throw thrown;
  }
}
