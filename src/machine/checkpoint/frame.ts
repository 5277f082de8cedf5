/** What is around the pages in a checkpoint: the parts of its main stream that vmferry writes itself. */
import { Writer } from '../../base/index.ts';
import {
  type Configuration,
  encodeConfiguration,
  encodeHeader,
  encodeRamBlock,
  encodeRamEos,
  encodeRamTotal,
  encodeSectionBegin,
  encodeSectionFooter,
  type MappedRamHeader,
  RAM_SECTION_VERSION,
  type SectionHeader,
} from '../../wire/index.ts';
import type { AnnouncedBlock } from '../machine.ts';

export interface Section {
  readonly header: SectionHeader;
  readonly body: Buffer;
}

/** Header, configuration, `early` sections, START ram and the total of the `blocks`. */
export function encodePreface(
  configuration: Configuration,
  early: readonly Section[],
  ramId: number,
  blocks: readonly AnnouncedBlock[],
): Buffer {
  const writer = new Writer();
  encodeHeader(writer);
  const others = (configuration.capabilities ?? []).filter((name) => name !== 'mapped-ram');
  encodeConfiguration(writer, { ...configuration, capabilities: [...others, 'mapped-ram'] });
  writer.raw(encodeSections(early));
  encodeSectionBegin(writer, ramSection('start', ramId));
  encodeRamTotal(writer, ramBytes(blocks));
  return writer.bytes();
}

/** EOS and footer of START ram, END ram. */
export function encodeRamEnd(ramId: number): Buffer {
  const writer = new Writer();
  encodeRamEos(writer);
  encodeSectionFooter(writer, ramId);
  encodeSectionBegin(writer, ramSection('end', ramId));
  encodeRamEos(writer);
  encodeSectionFooter(writer, ramId);
  return writer.bytes();
}

/** A block's entry in the block list. */
export function encodeEntry(block: AnnouncedBlock, mapped: MappedRamHeader): Buffer {
  const writer = new Writer();
  const { pageSize: _hostPageSize, ...announced } = block;
  encodeRamBlock(writer, { ...announced, mapped });
  return writer.bytes();
}

/** That of a block which is ignored as shared. */
export function encodeIgnoredEntry(block: AnnouncedBlock, pageSize: number): Buffer {
  return encodeEntry(block, { pageSize, bitmapOffset: 0, pagesOffset: 0 });
}

export function encodeSections(sections: readonly Section[]): Buffer {
  const writer = new Writer();
  for (const { header, body } of sections) {
    encodeSectionBegin(writer, header);
    writer.raw(body);
    encodeSectionFooter(writer, header.id);
  }
  return writer.bytes();
}

export function ramBytes(blocks: readonly AnnouncedBlock[]): number {
  return blocks.reduce((sum, block) => sum + block.usedLength, 0);
}

function ramSection(kind: 'start' | 'end', id: number): SectionHeader {
  return { kind, id, idstr: 'ram', instance: 0, version: RAM_SECTION_VERSION };
}
