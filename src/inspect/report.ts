/** What `inspect` has to say about a file: plain data, offsets in bytes from the start of the file. */
import type { Command, RamCounts, SectionKind } from '../wire/index.ts';

export interface Report {
  readonly file: string;
  readonly fileBytes: number;
  /** Where the stream begins. */
  readonly streamOffset: number;
  readonly format: 'stream' | 'mapped-ram';
  /** Absent if the file is damaged before it. */
  readonly configuration?: ReportedConfiguration;
  /** What section globalstate says: `running` starts the guest at the destination. */
  readonly runState?: string;
  readonly commands: readonly ReportedCommand[];
  /** Commands above COMMANDS_LISTED_MAX are only counted. */
  readonly commandCount: number;
  /** In order of their first byte. */
  readonly sections: readonly ReportedSection[];
  readonly ram?: ReportedRam;
  readonly description?: ReportedDescription;
  /** Where every byte went, by kind; together with `unaccounted` the size of the file. */
  readonly bytes: Readonly<Partial<Record<ByteKind, number>>>;
  readonly unaccounted: readonly { readonly offset: number; readonly bytes: number }[];
  readonly damage?: Damage;
}

export interface ReportedConfiguration {
  readonly machineType: string;
  /** Target page size, bytes. */
  readonly pageSize: number;
  readonly capabilities: readonly string[];
  readonly uuid?: string;
}

export interface ReportedCommand {
  readonly offset: number;
  readonly name: Command['name'];
  /** Payload as `key=value`; empty if there is none. */
  readonly detail: string;
}

/** A section; all PARTs of an iterable section are one entry, `bytes` being their sum. */
export interface ReportedSection {
  readonly kind: SectionKind;
  readonly id: number;
  readonly idstr: string;
  readonly instance: number;
  readonly version: number;
  readonly offset: number;
  bytes: number;
  count: number;
  /** FULL sections and iterables other than RAM: where the body lies (that of the first PART). */
  readonly bodyOffset?: number;
  readonly bodyBytes?: number;
  /** FULL sections: how the body compares with the VMDESC. */
  described?: 'exactly' | 'not at all' | 'wrongly';
}

export interface ReportedRam {
  /** Sum of the blocks' lengths as announced. */
  readonly totalBytes: number;
  readonly blocks: readonly ReportedBlock[];
  /** MULTIFD_FLUSH records. */
  readonly multifdFlushes: number;
}

export interface ReportedBlock extends Omit<RamCounts, 'xbzrleBytes'> {
  readonly idstr: string;
  readonly usedLength: number;
  readonly pageSize?: number;
  readonly guestAddress?: number;
  /** Mapped-ram: `normal` counts bits that are set, `zero` those that are not. */
  readonly mapped?: { readonly bitmapOffset: number; readonly pagesOffset: number };
}

export interface ReportedDescription {
  readonly offset: number;
  /** Type byte and length included. */
  readonly bytes: number;
  readonly devices: number;
  /** Footers alone were misleading: the sections were told apart by the description. */
  readonly usedToSplit: boolean;
}

/** Where the file stops to be what it should be, and what should be there. */
export interface Damage {
  readonly offset: number;
  /** What was being read: `section ram / block pc.ram`. */
  readonly path: string;
  readonly expected: string;
  readonly found: string;
  /** Code of the fault and the whole sentence. */
  readonly code: string;
  readonly message: string;
}

/** Names for people, in the order of the table. */
export const BYTE_KINDS = {
  before: 'before the stream',
  header: 'header',
  configuration: 'configuration',
  commands: 'commands',
  sectionHeaders: 'section headers',
  sectionFooters: 'section footers',
  ramBlockList: 'ram block list',
  ramRecords: 'ram record headers',
  ramPages: 'ram pages',
  ramXbzrle: 'ram xbzrle bodies',
  mappedBitmaps: 'mapped-ram bitmaps',
  mappedPadding: 'mapped-ram alignment',
  mappedPages: 'mapped-ram pages',
  mappedHoles: 'mapped-ram room of zero pages',
  iterables: 'other iterable sections',
  devices: 'device state',
  eof: 'end of sections',
  description: 'description',
  incomplete: 'damaged element',
} as const;
export type ByteKind = keyof typeof BYTE_KINDS;

export const COMMANDS_LISTED_MAX = 10_000;
