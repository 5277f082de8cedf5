/**
 * What the main stream says, in order. `StreamParser.next()` gives one event at a time; page records never become events, they go
 * straight to the `RamSink`.
 */
import type { MappedRamHeader } from '../mapped-ram/header.ts';
import type { AnnouncedBlock, RamCounts } from '../ram/sink.ts';
import type { VfioElement } from './body/vfio.ts';

export interface Configuration {
  readonly machineType: string;
  /** Subsection target-page-bits; undefined = the target's legacy value (x86: 12). */
  readonly targetPageBits: number | undefined;
  /** Subsection capabilities (x-ignore-shared, mapped-ram ...): those that are on; undefined = subsection absent. */
  readonly capabilities: readonly string[] | undefined;
  /** Subsection uuid (validate-uuid), 16 bytes. */
  readonly uuid: Buffer | undefined;
}

export type SectionKind = 'start' | 'part' | 'end' | 'full';

export interface SectionHeader {
  readonly kind: SectionKind;
  readonly id: number;
  /** From the START or FULL section with this id. */
  readonly idstr: string;
  readonly instance: number;
  readonly version: number;
}

export type Command =
  | { readonly name: 'OPEN_RETURN_PATH' }
  | { readonly name: 'PING'; readonly value: number }
  | {
      readonly name: 'POSTCOPY_ADVISE';
      readonly pageSizes: { readonly summary: bigint; readonly target: bigint } | undefined;
    }
  | { readonly name: 'POSTCOPY_LISTEN' }
  | { readonly name: 'POSTCOPY_RUN' }
  | {
      readonly name: 'POSTCOPY_RAM_DISCARD';
      readonly block: string;
      /** Bytes inside the block. */
      readonly ranges: readonly { readonly start: number; readonly length: number }[];
    }
  | { readonly name: 'PACKAGED'; readonly length: number }
  | { readonly name: 'ENABLE_COLO' }
  | { readonly name: 'POSTCOPY_RESUME' }
  | { readonly name: 'RECV_BITMAP'; readonly block: string }
  | { readonly name: 'SWITCHOVER_START' };

/** `offset` and `length`: where the element lies in the stream, bytes. */
export interface At {
  readonly offset: number;
  readonly length: number;
}

export type StreamEvent =
  | (At & { readonly kind: 'header'; readonly version: number })
  | (At & { readonly kind: 'configuration'; readonly configuration: Configuration })
  | (At & { readonly kind: 'command'; readonly command: Command })
  /** A section of ram or of a VFIO device begins: records or `vfio` events follow, up to `section-end`. */
  | (At & { readonly kind: 'section-begin'; readonly section: SectionHeader })
  /** Block list of the ram START section. The consumer must call `parser.setRamSink` before `next`, unless mapped-ram. */
  | (At & { readonly kind: 'ram-blocks'; readonly totalBytes: number; readonly blocks: readonly StreamRamBlock[] })
  /** A MULTIFD_FLUSH record: the point where all channels meet. */
  | (At & { readonly kind: 'multifd-flush' })
  /**
   * EOS of a section of RAM: the other such point, of older machine types. A source may keep the footer back until its channels get on, and they
   * only do behind this.
   */
  | (At & { readonly kind: 'ram-eos' })
  /**
   * All page records that had arrived are in the sink; more may come in this section. Given once per batch, so the consumer can drain.
   * `pages`, here and in section-end: totals since the start of the stream.
   */
  | (At & { readonly kind: 'ram-batch'; readonly pages: RamCounts })
  | (At & { readonly kind: 'section-end'; readonly section: SectionHeader; readonly ramPages?: RamCounts })
  /** In a VFIO device's section: data comes in pieces as they arrive. */
  | (At & { readonly kind: 'vfio'; readonly section: SectionHeader; readonly element: VfioElement })
  /** Any other section: `body` is valid until the next call; `offset` is that of the section type byte. */
  | (At & {
      readonly kind: 'device';
      readonly section: SectionHeader;
      readonly body: Buffer;
      readonly bodyOffset: number;
    })
  /** With the option `packages: 'whole'`, behind the command PACKAGED: all elements of the package; valid until the next call. */
  | (At & { readonly kind: 'package'; readonly bytes: Buffer })
  | (At & { readonly kind: 'eof' })
  | (At & { readonly kind: 'description'; readonly text: string });

export interface StreamRamBlock extends AnnouncedBlock {
  /** With mapped-ram only; absolute file offsets, bytes. Both offsets 0: an ignored (shared) block, no region in the file. */
  readonly mapped?: MappedRamHeader;
}
