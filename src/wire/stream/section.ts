/**
 * ```
 * 01 START, 04 FULL   u32 id, cstr idstr, u32 instance, u32 version, body, footer
 * 02 PART,  03 END    u32 id, body, footer
 * 7e FOOTER           u32 id
 * ```
 * @spec qemu migration/savevm.c save_section_header, save_section_footer
 */
import type { Reader, Writer } from '../../base/index.ts';
import { unreachable } from '../../base/index.ts';
import { hex, unexpected } from '../errors.ts';
import { nameField } from '../fields.ts';
import type { SectionHeader, SectionKind } from './events.ts';

/** Type byte of a top level element (05 occurs inside bodies and in the configuration only). */
export const ELEMENT = {
  EOF: 0x00,
  SECTION_START: 0x01,
  SECTION_PART: 0x02,
  SECTION_END: 0x03,
  SECTION_FULL: 0x04,
  SUBSECTION: 0x05,
  VMDESCRIPTION: 0x06,
  CONFIGURATION: 0x07,
  COMMAND: 0x08,
  SECTION_FOOTER: 0x7e,
} as const;

export const SECTION_FOOTER_BYTES = 5;

const TYPE_OF_KIND = {
  start: ELEMENT.SECTION_START,
  part: ELEMENT.SECTION_PART,
  end: ELEMENT.SECTION_END,
  full: ELEMENT.SECTION_FULL,
} as const satisfies Record<SectionKind, number>;

export function encodeSectionBegin(writer: Writer, section: SectionHeader): void {
  writer.u8(TYPE_OF_KIND[section.kind]).u32(section.id);
  switch (section.kind) {
    case 'start':
    case 'full':
      writer.cstr(section.idstr).u32(section.instance).u32(section.version);
      return;
    case 'part':
    case 'end':
      return;
    default:
      unreachable(section.kind);
  }
}

export function encodeSectionFooter(writer: Writer, id: number): void {
  writer.u8(ELEMENT.SECTION_FOOTER).u32(id);
}

/**
 * The header that starts at the reader, type byte included. PART and END carry the id only: `started` gives what their START said.
 */
export function decodeSectionBegin(reader: Reader, started: (id: number) => SectionHeader | undefined): SectionHeader {
  const at = reader.offset;
  const type = reader.u8();
  const kind = kindOfType(type);
  if (kind === undefined) throw unexpected(reader, at, 'section', 'element type', '01 to 04', hex(type, 2));
  const id = reader.u32();
  const path = `section id ${id}`;
  if (kind === 'start' || kind === 'full') {
    const idstr = nameField(reader, path, 'idstr');
    return { kind, id, idstr, instance: reader.u32(), version: reader.u32() };
  }
  const first = started(id);
  if (first === undefined)
    throw unexpected(reader, at + 1, path, `id of a ${kind} section`, 'one that was started', id);
  return { ...first, kind };
}

export function decodeSectionFooter(reader: Reader, section: SectionHeader): void {
  const at = reader.offset;
  const type = reader.u8();
  const path = sectionPath(section);
  if (type !== ELEMENT.SECTION_FOOTER) throw unexpected(reader, at, path, 'footer', '0x7e', hex(type, 2));
  const id = reader.u32();
  if (id !== section.id) throw unexpected(reader, at + 1, path, 'id in the footer', String(section.id), id);
}

export function kindOfType(type: number): SectionKind | undefined {
  switch (type) {
    case ELEMENT.SECTION_START:
      return 'start';
    case ELEMENT.SECTION_PART:
      return 'part';
    case ELEMENT.SECTION_END:
      return 'end';
    case ELEMENT.SECTION_FULL:
      return 'full';
    default:
      return undefined;
  }
}

/** For errors: `section ram`, `section 0000:00:03.0/e1000 instance 1`. */
export function sectionPath(section: SectionHeader): string {
  return `section ${section.idstr}` + (section.instance === 0 ? '' : ` instance ${section.instance}`);
}
