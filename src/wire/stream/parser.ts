/**
 * The main stream as events. Grammar (indented: inside the element above):
 *
 * ```
 * header  configuration  element*  00  [06 description]            (no description after postcopy)
 *   element = 01 START | 02 PART | 03 END | 04 FULL: section begin, body, 7e footer
 *           | 08 command; PACKAGED: elements up to its length (commands LISTEN, PING, RUN and FULL sections), or all of them as one event
 *   body    = ram: records up to EOS | vfio: elements up to one that ends them | dirty-bitmap: by its marks | anything else: whole (body/device.ts)
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
import { BODY_END } from '../ram/section.ts';
import type { RamSink } from '../ram/sink.ts';
import { DeviceBody, type MeasureDevice } from './body/device.ts';
import { isVfioSection, VfioBody } from './body/vfio.ts';
import { decodeCommand } from './command.ts';
import { decodeConfiguration } from './configuration.ts';
import { decodeDescription } from './description.ts';
import type { SectionHeader, StreamEvent, StreamRamBlock } from './events.ts';
import { decodeHeader } from './header.ts';
import {
  decodeSectionBegin,
  decodeSectionFooter,
  ELEMENT,
  kindOfType,
  SECTION_FOOTER_BYTES,
  sectionPath,
} from './section.ts';
import { StreamState } from './state.ts';

export interface StreamParserOptions {
  /** Target page size of the receiver, bytes; a stream that announces another one is refused. Default: what the stream says, else 4096. */
  readonly pageSize?: number;
  readonly measureDevice?: MeasureDevice;
  /**
   * `whole`: a package is one event, given when all of it has arrived; `packaged` reads what is in it. A destination wants it so: loading
   * devices may need pages that come behind the package. Default `inline`: its elements are events of this stream.
   */
  readonly packages?: 'inline' | 'whole';
  /** Bounds to raise or lower, bytes. */
  readonly maxima?: { readonly deviceBody?: number; readonly description?: number };
}

type Step =
  | 'header'
  | 'configuration'
  | 'element'
  | 'ram'
  | 'vfio'
  | 'footer'
  | 'body'
  | 'package'
  | 'description'
  | 'over'
  | 'failed';

export class StreamParser {
  #reader: Reader;
  readonly #options: StreamParserOptions;
  readonly #state: StreamState;
  #step: Step = 'header';
  #failure: unknown;
  /** The last one, and its body if it is not RAM. */
  #section: SectionHeader | undefined;
  #vfio: VfioBody | undefined;
  #body: DeviceBody | undefined;
  /** Stream offset where the package ends that is being read. */
  #packageEnd: number | undefined;
  /** Nothing but that package is read here. */
  #onlyPackage = false;
  #silent = false;

  /** `state`: what has been said before; `packaged` gives it. */
  constructor(reader: Reader, options: StreamParserOptions = {}, state = new StreamState(options.pageSize)) {
    this.#reader = reader;
    this.#options = options;
    this.#state = state;
  }

  /** The stream is over: nothing more will be read. */
  get finished(): boolean {
    return (
      this.#step === 'over' || (this.#step === 'description' && this.#reader.final && this.#reader.available === 0)
    );
  }

  /** Inside a mapped-ram region: the stream offset where reading goes on, for a driver that can `StreamInput.seek` there. */
  get skipTo(): number | undefined {
    return this.#state.ram?.skipTo;
  }

  /** The block list of ram as far as it has been read, and the total it announces, bytes: for who explains a stream that ends in it. */
  get ramBlocks(): readonly StreamRamBlock[] {
    return this.#state.ram?.blocks ?? [];
  }

  get ramBytes(): number {
    return this.#state.ram?.totalBytes ?? 0;
  }

  /** Where the parser is, for messages: `section ram`, `package / section timer`, `description`. */
  get path(): string {
    return joinPath(this.#packageEnd === undefined ? '' : 'package', this.#stepPath());
  }

  /** The decoder of page records, while the stream is among them: for a receiver that takes some of them by other means. */
  get ramDecoder(): RamDecoder | undefined {
    return this.#step === 'ram' ? this.#state.ram?.decoder : undefined;
  }

  /** Pages of the ram sections go there. To be called on `ram-blocks`, before `next`. */
  setRamSink(sink: RamSink): void {
    assert(this.#state.ram !== undefined, 'setRamSink comes after the block list');
    this.#state.ram.setSink(sink);
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
    this.#state.reconnected();
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
      this.#state,
    );
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
        this.#state.configure(reader, configuration, offset);
        this.#step = 'element';
        return { kind: 'configuration', offset, length: reader.offset - offset, configuration };
      }
      case 'element':
        return this.#element(offset);
      case 'ram':
        return this.#ramBody();
      case 'vfio': {
        const body = this.#vfio!;
        const element = body.next(reader);
        if (body.ended) this.#step = 'footer';
        return { kind: 'vfio', offset, length: reader.offset - offset, section: this.#section!, element };
      }
      case 'footer':
        return this.#footer(offset);
      case 'body':
        return this.#deviceBody();
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

  #element(offset: number): StreamEvent | undefined {
    const reader = this.#reader;
    if (this.#packageEnd !== undefined && offset >= this.#packageEnd) {
      if (offset > this.#packageEnd) {
        const legal = `that of the package, ${this.#packageEnd}`;
        throw unexpected(reader, offset, '', 'end of the last element', legal, offset);
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
      this.#step = this.#state.order.phase === 'none' || this.#state.order.phase === 'advised' ? 'description' : 'over';
      return { kind: 'eof', offset, length: 1 };
    }
    const legal = this.#packageEnd === undefined ? '00 to 04 or 08' : '04 or 08';
    throw unexpected(reader, offset, '', 'element type', legal, hex(type, 2));
  }

  #command(offset: number): StreamEvent {
    const reader = this.#reader;
    const command = decodeCommand(reader);
    this.#state.order.take(reader, command, offset, this.#packageEnd !== undefined);
    if (command.name === 'PACKAGED') this.#beginPackage(command.length);
    if (command.name === 'POSTCOPY_LISTEN') this.#state.ram?.beginPostcopy();
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
    const section = decodeSectionBegin(reader, (id) => this.#state.sections.known.get(id));
    const length = reader.offset - offset;
    if (this.#packageEnd !== undefined && section.kind !== 'full') {
      throw unexpected(reader, offset, sectionPath(section), 'kind of section', 'full, in a package', section.kind);
    }
    this.#state.sections.enter(reader, section, offset);
    this.#section = section;
    if (section.idstr === 'ram') {
      this.#state.beginRam(reader, section, offset);
      this.#step = 'ram';
      return { kind: 'section-begin', offset, length, section };
    }
    if (isVfioSection(section.idstr)) {
      this.#vfio = new VfioBody(section.id);
      this.#step = 'vfio';
      return { kind: 'section-begin', offset, length, section };
    }
    const bytesMax = this.#options.maxima?.deviceBody ?? DEVICE_BODY_BYTES_MAX;
    this.#body = new DeviceBody(section, offset, reader.offset, bytesMax, this.#options.measureDevice);
    this.#step = 'body';
    return undefined;
  }

  #ramBody(): StreamEvent | undefined {
    const event = this.#state.ram!.next(this.#reader);
    if (event !== BODY_END) return event;
    this.#step = 'footer';
    return {
      kind: 'ram-eos',
      offset: this.#reader.offset - RAM_CONTROL_RECORD_BYTES,
      length: RAM_CONTROL_RECORD_BYTES,
    };
  }

  /** Of a section that was told piece by piece. */
  #footer(offset: number): StreamEvent {
    const section = this.#section!;
    decodeSectionFooter(this.#reader, section);
    this.#step = 'element';
    const end = { kind: 'section-end', offset, length: SECTION_FOOTER_BYTES, section } as const;
    return section.idstr === 'ram' ? { ...end, ramPages: this.#state.ram!.pages } : end;
  }

  #deviceBody(): StreamEvent {
    const event = this.#body!.read(this.#reader, {
      known: this.#state.sections.known,
      packageEnd: this.#packageEnd,
      silent: this.#silent,
    });
    this.#body = undefined;
    this.#step = 'element';
    return event;
  }

  #stepPath(): string {
    switch (this.#step) {
      case 'header':
      case 'configuration':
      case 'description':
        return this.#step;
      case 'ram':
      case 'vfio':
      case 'footer':
      case 'body':
        return sectionPath(this.#section!);
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
