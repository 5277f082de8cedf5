/**
 * Body of any other section, kept whole while it arrives. Where it ends is what it says itself (dirty-bitmap), else what a machine that knows
 * the device has measured, else at a footer that something plausible follows (footer-scan.ts).
 */
import type { Reader } from '../../../base/index.ts';
import { isWireError, locate, overLimit, unexpected } from '../../errors.ts';
import type { SectionHeader, StreamEvent } from '../events.ts';
import { decodeSectionFooter, SECTION_FOOTER_BYTES, sectionPath } from '../section.ts';
import { DirtyBitmapScan } from './dirty-bitmap.ts';
import { FooterScan, type ScanContext } from './footer-scan.ts';
import type { BodyScan } from './scan.ts';

/**
 * Length of the section's body at the start of `bytes` (all that has arrived), if the machine knows the device; it may be more than
 * has arrived. Undefined: the body is sought by its footer. May throw STARVED.
 */
export type MeasureDevice = (section: SectionHeader, bytes: Buffer) => number | undefined;

export class DeviceBody {
  readonly #section: SectionHeader;
  /** Stream offsets of the section and of its body. */
  readonly #sectionAt: number;
  readonly #start: number;
  readonly #bytesMax: number;
  readonly #measure: MeasureDevice | undefined;
  readonly #footer: FooterScan;
  /** Self-delimiting bodies: up to `#scanned` (stream offset) its elements are known. */
  readonly #scan: BodyScan | undefined;
  #scanned: number;
  /** Stream offset of the footer, once known. */
  #footerAt: number | undefined;

  /** The section's header stands at stream offset `sectionAt`, its body at `start`; a body of more than `bytesMax` is refused. */
  constructor(section: SectionHeader, sectionAt: number, start: number, bytesMax: number, measure?: MeasureDevice) {
    this.#section = section;
    this.#sectionAt = sectionAt;
    this.#start = start;
    this.#bytesMax = bytesMax;
    this.#measure = measure;
    this.#footer = new FooterScan(section.id, start);
    this.#scan = section.idstr === 'dirty-bitmap' ? new DirtyBitmapScan() : undefined;
    this.#scanned = start;
  }

  /** The section, whole. The reader stands at the start of the body and stays there until body and footer are here. Throws WireError, STARVED. */
  read(reader: Reader, context: ScanContext): StreamEvent {
    if (reader.available > this.#bytesMax) this.#checkLength(reader);
    this.#footerAt ??= this.#findFooter(reader, context);
    this.#checkLength(reader);

    const length = this.#footerAt - this.#start;
    reader.need(length + SECTION_FOOTER_BYTES);
    const body = reader.view(length);
    decodeSectionFooter(reader, this.#section);
    return {
      kind: 'device',
      offset: this.#sectionAt,
      length: reader.offset - this.#sectionAt,
      section: this.#section,
      body,
      bodyOffset: this.#start,
    };
  }

  #checkLength(reader: Reader): void {
    const bytes = this.#footerAt === undefined ? reader.available : this.#footerAt - this.#start;
    if (bytes > this.#bytesMax) {
      throw overLimit(reader, this.#start, sectionPath(this.#section), 'length of the body', this.#bytesMax, bytes);
    }
  }

  #findFooter(reader: Reader, context: ScanContext): number {
    if (this.#scan !== undefined) return this.#scanElements(reader, this.#scan);
    const measured = this.#measure?.(this.#section, reader.bytes.subarray(reader.pos, reader.end));
    if (measured !== undefined) return this.#start + measured;
    const found = this.#footer.find(reader, context);
    if (found < 0) {
      throw unexpected(
        reader,
        this.#start,
        sectionPath(this.#section),
        'footer',
        'one before the package ends',
        'none',
      );
    }
    return found;
  }

  #scanElements(reader: Reader, scan: BodyScan): number {
    try {
      for (let over = false; !over; this.#scanned = reader.offset) {
        reader.pos = this.#scanned - reader.origin;
        over = scan.step(reader);
      }
      return this.#scanned;
    } catch (thrown) {
      throw isWireError(thrown) ? locate(thrown, sectionPath(this.#section)) : thrown;
    } finally {
      reader.pos = this.#start - reader.origin;
    }
  }
}
