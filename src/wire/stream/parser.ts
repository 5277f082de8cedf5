/**
 * The main stream as events. Grammar (indented: inside the element above):
 *
 * ```
 * header  configuration  element*  00  [06 description]            (no description after postcopy)
 *   element = 01 START | 02 PART | 03 END | 04 FULL: section begin, body, 7e footer
 *           | 08 command; PACKAGED: elements up to its length (commands LISTEN, PING, RUN and FULL sections), or all of them as one event
 *   body    = ram: records up to EOS | vfio: elements up to one that ends them | dirty-bitmap: by its marks | anything else: up to its footer (body/footer-scan.ts)
 * ```
 * Pull parser: `next()` gives one event, or undefined when the reader must get more bytes first (StreamInput) or all is over
 * (`finished`). Small elements are decoded again from their first byte when they were not whole; large ones remember their place.
 * Faults are WireError; after one the parser is of no more use.
 */
import { assert, type FerryError, Reader, type ReadFault, STARVED } from '../../base/index.ts';
import { hex, isWireError, joinPath, locate, overLimit, unexpected } from '../errors.ts';
import { DESCRIPTION_BYTES_MAX, DEVICE_BODY_BYTES_MAX, PACKAGE_BYTES_MAX } from '../limits.ts';
import type { RamDecoder } from '../ram/decoder.ts';
import { RAM_CONTROL_RECORD_BYTES } from '../ram/records.ts';
import { BODY_END, RamSections } from '../ram/section.ts';
import type { RamSink } from '../ram/sink.ts';
import { DirtyBitmapScan } from './body/dirty-bitmap.ts';
import { FooterScan } from './body/footer-scan.ts';
import type { BodyScan } from './body/scan.ts';
import { isVfioSection, VfioBody } from './body/vfio.ts';
import { decodeCommand } from './command.ts';
import { CommandOrder } from './command-order.ts';
import { decodeConfiguration } from './configuration.ts';
import { decodeDescription } from './description.ts';
import type { Configuration, SectionHeader, StreamEvent, StreamRamBlock } from './events.ts';
import { decodeHeader } from './header.ts';
import {
  decodeSectionBegin,
  decodeSectionFooter,
  ELEMENT,
  kindOfType,
  SECTION_FOOTER_BYTES,
  sectionPath,
} from './section.ts';
import { SectionTable } from './sections.ts';

export interface StreamParserOptions {
  /** Target page size of the receiver, bytes; a stream that announces another one is refused. Default: what the stream says, else 4096. */
  readonly pageSize?: number;
  /**
   * Length of the section's body at the start of `bytes` (all that has arrived), if the machine knows the device; it may be more than
   * has arrived. Undefined: the body is sought by its footer. May throw STARVED.
   */
  readonly measureDevice?: (section: SectionHeader, bytes: Buffer) => number | undefined;
  /**
   * `whole`: a package is one event, given when all of it has arrived; `packaged` reads what is in it. A destination wants it so: loading
   * devices may need pages that come behind the package. Default `inline`: its elements are events of this stream.
   */
  readonly packages?: 'inline' | 'whole';
  /** Bounds to raise or lower, bytes. */
  readonly maxima?: { readonly deviceBody?: number; readonly description?: number };
}

const LEGACY_PAGE_BITS = 12;

/** A section whose body is kept whole, while it arrives. */
interface OpenBody {
  readonly section: SectionHeader;
  readonly offset: number;
  readonly bodyOffset: number;
  /** Self-delimiting bodies: up to `scanned` (stream offset) its elements are known. */
  readonly scan: BodyScan | undefined;
  scanned: number;
  readonly footer: FooterScan;
  /** Stream offset of the footer, once known. */
  footerOffset: number | undefined;
}

type Step =
  | 'header'
  | 'configuration'
  | 'element'
  | 'ram'
  | 'ram-footer'
  | 'vfio'
  | 'vfio-footer'
  | 'body'
  | 'package'
  | 'description'
  | 'over'
  | 'failed';

export class StreamParser {
  #reader: Reader;
  readonly #options: StreamParserOptions;
  #sections = new SectionTable();
  #order = new CommandOrder();
  #step: Step = 'header';
  #failure: unknown;
  #configuration: Configuration | undefined;
  #pageSize: number;
  #ram: RamSections | undefined;
  #ramSection: SectionHeader | undefined;
  #vfio: { readonly section: SectionHeader; readonly body: VfioBody } | undefined;
  #body: OpenBody | undefined;
  /** Stream offset where the package ends that is being read. */
  #packageEnd: number | undefined;
  /** Nothing but that package is read here. */
  #onlyPackage = false;
  #silent = false;

  constructor(reader: Reader, options: StreamParserOptions = {}) {
    this.#reader = reader;
    this.#options = options;
    this.#pageSize = options.pageSize ?? 1 << LEGACY_PAGE_BITS;
  }

  /** The stream is over: nothing more will be read. */
  get finished(): boolean {
    return (
      this.#step === 'over' || (this.#step === 'description' && this.#reader.final && this.#reader.available === 0)
    );
  }

  /** Inside a mapped-ram region: the stream offset where reading goes on, for a driver that can `StreamInput.seek` there. */
  get skipTo(): number | undefined {
    return this.#ram?.skipTo;
  }

  /** The block list of ram as far as it has been read, and the total it announces, bytes: for who explains a stream that ends in it. */
  get ramBlocks(): readonly StreamRamBlock[] {
    return this.#ram?.blocks ?? [];
  }

  get ramBytes(): number {
    return this.#ram?.totalBytes ?? 0;
  }

  /** Where the parser is, for messages: `section ram`, `package / section timer`, `description`. */
  get path(): string {
    return joinPath(this.#packageEnd === undefined ? '' : 'package', this.#stepPath());
  }

  /** The decoder of page records, while the stream is among them: for a receiver that takes some of them by other means. */
  get ramDecoder(): RamDecoder | undefined {
    return this.#step === 'ram' ? this.#ram?.decoder : undefined;
  }

  /** Pages of the ram sections go there. To be called on `ram-blocks`, before `next`. */
  setRamSink(sink: RamSink): void {
    assert(this.#ram !== undefined, 'setRamSink comes after the block list');
    this.#ram.setSink(sink);
  }

  /**
   * The driver's word, good for the next call of `next`, that the peer has gone quiet (it waits for an answer). Only then a device section whose footer and EOF are the last
   * bytes there are can be taken as complete: a source with `suppress-vmdesc=on` sends nothing after them.
   */
  assumeSilent(): void {
    this.#silent = true;
  }

  /**
   * Postcopy recovery: goes on with a new main channel. It starts without header and configuration; what was cut off on the old one is
   * sent again from the start of its record. Sections and blocks are still known, the block that CONTINUE refers to is not.
   */
  resume(reader: Reader): void {
    this.#order.pause();
    this.#sections.reopen();
    this.#ram?.forgetBlock();
    this.#reader = reader;
    this.#body = undefined;
    this.#vfio = undefined;
    this.#packageEnd = undefined;
    this.#step = 'element';
  }

  /** Reads the elements of a package, `bytes` of the event `package` of this parser. Sections, blocks and the order of commands are the stream's. */
  packaged({ bytes, offset }: { readonly bytes: Buffer; readonly offset: number }): StreamParser {
    const inner = new StreamParser(
      new Reader(bytes, this.#reader.stream, { final: true, origin: offset }),
      this.#options,
    );
    inner.#sections = this.#sections;
    inner.#order = this.#order;
    inner.#configuration = this.#configuration;
    inner.#pageSize = this.#pageSize;
    inner.#ram = this.#ram;
    inner.#packageEnd = offset + bytes.length;
    inner.#onlyPackage = true;
    inner.#step = 'element';
    return inner;
  }

  /** The next event; undefined: more bytes are needed, or `finished`. Throws WireError and what the sink throws. */
  next(): StreamEvent | undefined {
    const reader = this.#reader;
    if (this.#step === 'failed') throw this.#failure;
    try {
      while (!this.finished) {
        const mark = reader.pos;
        try {
          const event = this.#advance();
          this.#silent = false;
          if (event !== undefined) return event;
        } catch (thrown) {
          reader.pos = mark;
          this.#silent = false;
          if (thrown === STARVED) return undefined;
          throw thrown;
        }
      }
      return undefined;
    } catch (thrown) {
      this.#failure = this.#located(thrown);
      this.#step = 'failed';
      throw this.#failure;
    }
  }

  #advance(): StreamEvent | undefined {
    const reader = this.#reader;
    const offset = reader.offset;
    switch (this.#step) {
      case 'header': {
        const version = decodeHeader(reader);
        this.#step = 'configuration';
        return { kind: 'header', offset, length: reader.offset - offset, version };
      }
      case 'configuration': {
        const configuration = decodeConfiguration(reader);
        this.#take(configuration, offset);
        this.#step = 'element';
        return { kind: 'configuration', offset, length: reader.offset - offset, configuration };
      }
      case 'element':
        return this.#element(offset);
      case 'ram':
        return this.#ramBody();
      case 'ram-footer': {
        const section = this.#ramSection!;
        decodeSectionFooter(reader, section);
        this.#step = 'element';
        return { kind: 'section-end', offset, length: SECTION_FOOTER_BYTES, section, ramPages: this.#ram!.pages };
      }
      case 'vfio': {
        const { section, body } = this.#vfio!;
        const element = body.next(reader);
        if (body.ended) this.#step = 'vfio-footer';
        return { kind: 'vfio', offset, length: reader.offset - offset, section, element };
      }
      case 'vfio-footer': {
        const { section } = this.#vfio!;
        decodeSectionFooter(reader, section);
        this.#step = 'element';
        return { kind: 'section-end', offset, length: SECTION_FOOTER_BYTES, section };
      }
      case 'body':
        return this.#deviceBody(this.#body!);
      case 'package': {
        const bytes = reader.view(this.#packageEnd! - offset);
        this.#packageEnd = undefined;
        this.#step = 'element';
        return { kind: 'package', offset, length: bytes.length, bytes };
      }
      case 'description': {
        const text = decodeDescription(reader, this.#options.maxima?.description ?? DESCRIPTION_BYTES_MAX);
        this.#step = 'over';
        return { kind: 'description', offset, length: reader.offset - offset, text };
      }
      case 'over':
      case 'failed':
        return undefined;
    }
  }

  #take(configuration: Configuration, offset: number): void {
    const announced = 1 << (configuration.targetPageBits ?? LEGACY_PAGE_BITS);
    if (this.#options.pageSize === undefined) this.#pageSize = announced;
    else if (configuration.targetPageBits !== undefined && announced !== this.#pageSize) {
      const expected = `that of a page of ${this.#pageSize} bytes`;
      throw unexpected(
        this.#reader,
        offset,
        'configuration',
        'target page bits',
        expected,
        configuration.targetPageBits,
      );
    }
    this.#configuration = configuration;
  }

  #element(offset: number): StreamEvent | undefined {
    const reader = this.#reader;
    if (this.#packageEnd !== undefined && offset >= this.#packageEnd) {
      if (offset > this.#packageEnd) {
        throw unexpected(
          reader,
          offset,
          '',
          'end of the last element',
          `that of the package, ${this.#packageEnd}`,
          offset,
        );
      }
      this.#packageEnd = undefined;
      if (this.#onlyPackage) {
        this.#step = 'over';
        return undefined;
      }
    }
    const type = reader.peekU8();
    if (kindOfType(type) !== undefined) return this.#sectionBegin(offset);
    if (type === ELEMENT.COMMAND) return this.#command(offset);
    if (type === ELEMENT.EOF && this.#packageEnd === undefined) {
      reader.u8();
      this.#step = this.#order.phase === 'none' || this.#order.phase === 'advised' ? 'description' : 'over';
      return { kind: 'eof', offset, length: 1 };
    }
    const legal = this.#packageEnd === undefined ? '00 to 04 or 08' : '04 or 08';
    throw unexpected(reader, offset, '', 'element type', legal, hex(type, 2));
  }

  #command(offset: number): StreamEvent {
    const reader = this.#reader;
    const command = decodeCommand(reader);
    this.#order.take(reader, command, offset, this.#packageEnd !== undefined);
    if (command.name === 'PACKAGED') this.#beginPackage(command.length);
    if (command.name === 'POSTCOPY_LISTEN') this.#ram?.beginPostcopy();
    return { kind: 'command', offset, length: reader.offset - offset, command };
  }

  #beginPackage(length: number): void {
    const reader = this.#reader;
    const whole = this.#options.packages === 'whole';
    if (whole && length > PACKAGE_BYTES_MAX) {
      throw overLimit(reader, reader.offset - 4, 'command PACKAGED', 'length', PACKAGE_BYTES_MAX, length);
    }
    this.#packageEnd = reader.offset + length;
    if (whole) this.#step = 'package';
  }

  #sectionBegin(offset: number): StreamEvent | undefined {
    const reader = this.#reader;
    const section = decodeSectionBegin(reader, (id) => this.#sections.known.get(id));
    const length = reader.offset - offset;
    if (this.#packageEnd !== undefined && section.kind !== 'full') {
      throw unexpected(reader, offset, sectionPath(section), 'kind of section', 'full, in a package', section.kind);
    }
    this.#sections.enter(reader, section, offset);
    if (section.idstr === 'ram') {
      const capabilities = this.#configuration?.capabilities ?? [];
      this.#ramSection = section;
      this.#ram ??= new RamSections();
      this.#ram.begin(reader, section, offset, {
        pageSize: this.#pageSize,
        pageSizeSummary: this.#order.pageSizeSummary,
        ignoreShared: capabilities.includes('x-ignore-shared'),
        mappedRam: capabilities.includes('mapped-ram'),
      });
      this.#step = 'ram';
      return { kind: 'section-begin', offset, length, section };
    }
    if (isVfioSection(section.idstr)) {
      this.#vfio = { section, body: new VfioBody(section.id) };
      this.#step = 'vfio';
      return { kind: 'section-begin', offset, length, section };
    }
    this.#body = {
      section,
      offset,
      bodyOffset: reader.offset,
      scan: section.idstr === 'dirty-bitmap' ? new DirtyBitmapScan() : undefined,
      scanned: reader.offset,
      footer: new FooterScan(section.id, reader.offset),
      footerOffset: undefined,
    };
    this.#step = 'body';
    return undefined;
  }

  #ramBody(): StreamEvent | undefined {
    const event = this.#ram!.next(this.#reader);
    if (event !== BODY_END) return event;
    this.#step = 'ram-footer';
    return {
      kind: 'ram-eos',
      offset: this.#reader.offset - RAM_CONTROL_RECORD_BYTES,
      length: RAM_CONTROL_RECORD_BYTES,
    };
  }

  /** The reader stands at the start of the body and stays there until body and footer are whole. */
  #deviceBody(body: OpenBody): StreamEvent {
    const reader = this.#reader;
    const { section, bodyOffset } = body;
    const bytesMax = this.#options.maxima?.deviceBody ?? DEVICE_BODY_BYTES_MAX;
    if (reader.available > bytesMax) this.#checkBody(body, bytesMax);
    body.footerOffset ??= this.#findFooter(body);
    this.#checkBody(body, bytesMax);

    const bodyBytes = body.footerOffset - bodyOffset;
    reader.need(bodyBytes + SECTION_FOOTER_BYTES);
    const view = reader.view(bodyBytes);
    decodeSectionFooter(reader, section);
    this.#body = undefined;
    this.#step = 'element';
    return {
      kind: 'device',
      offset: body.offset,
      length: reader.offset - body.offset,
      section,
      body: view,
      bodyOffset,
    };
  }

  #checkBody(body: OpenBody, bytesMax: number): void {
    const bytes = body.footerOffset === undefined ? this.#reader.available : body.footerOffset - body.bodyOffset;
    if (bytes > bytesMax) {
      throw overLimit(this.#reader, body.bodyOffset, sectionPath(body.section), 'length of the body', bytesMax, bytes);
    }
  }

  #findFooter(body: OpenBody): number {
    const reader = this.#reader;
    const { section, bodyOffset, scan } = body;
    if (scan !== undefined) {
      try {
        for (let over = false; !over; body.scanned = reader.offset) {
          reader.pos = body.scanned - reader.origin;
          over = scan.step(reader);
        }
        return body.scanned;
      } catch (thrown) {
        throw isWireError(thrown) ? locate(thrown, sectionPath(section)) : thrown;
      } finally {
        reader.pos = bodyOffset - reader.origin;
      }
    }
    const measured = this.#options.measureDevice?.(section, reader.bytes.subarray(reader.pos, reader.end));
    if (measured !== undefined) return bodyOffset + measured;
    const found = body.footer.find(reader, {
      known: this.#sections.known,
      packageEnd: this.#packageEnd,
      silent: this.#silent,
    });
    if (found < 0) {
      throw unexpected(reader, bodyOffset, sectionPath(section), 'footer', 'one before the package ends', 'none');
    }
    return found;
  }

  #stepPath(): string {
    switch (this.#step) {
      case 'header':
      case 'configuration':
      case 'description':
        return this.#step;
      case 'ram':
      case 'ram-footer':
        return sectionPath(this.#ramSection!);
      case 'vfio':
      case 'vfio-footer':
        return sectionPath(this.#vfio!.section);
      case 'body':
        return sectionPath(this.#body!.section);
      case 'element':
      case 'package':
      case 'over':
      case 'failed':
        return '';
    }
  }

  /** Faults get the path of what was being read, if they do not name it themselves. */
  #located(thrown: unknown): unknown {
    if (!isWireError(thrown)) return thrown;
    const inPackage = this.#packageEnd === undefined ? '' : 'package';
    if (thrown.code === 'WIRE_TRUNCATED') return locate(thrown as FerryError<ReadFault>, this.path);
    const prefix = this.#step === 'ram' || this.#step === 'vfio' ? this.path : inPackage;
    return prefix === '' ? thrown : locate(thrown, prefix);
  }
}
