import type { Reader } from '../../base/index.ts';
import { unexpected } from '../errors.ts';
import { RamSections } from '../ram/section.ts';
import { CommandOrder } from './command-order.ts';
import { pageSizeOf } from './configuration.ts';
import type { Configuration, SectionHeader } from './events.ts';
import { SectionTable } from './sections.ts';

/** What a stream has said so far. It holds for what is in its package, and postcopy recovery goes on from it. */
export class StreamState {
  readonly sections = new SectionTable();
  readonly order = new CommandOrder();
  /** Undefined before the first section of RAM. */
  ram: RamSections | undefined;
  readonly #pageSizeWanted: number | undefined;
  #pageSize: number;
  #capabilities: readonly string[] = [];

  /** `pageSize`: target page size of the receiver, bytes; undefined: what the stream says, else 4096. */
  constructor(pageSize: number | undefined) {
    this.#pageSizeWanted = pageSize;
    this.#pageSize = pageSize ?? pageSizeOf();
  }

  /** The configuration stands at stream offset `at`; throws if its page size is not the receiver's. */
  configure(reader: Reader, configuration: Configuration, at: number): void {
    const { targetPageBits } = configuration;
    const announced = pageSizeOf(targetPageBits);
    if (this.#pageSizeWanted === undefined) this.#pageSize = announced;
    else if (targetPageBits !== undefined && announced !== this.#pageSize) {
      const expected = `that of a page of ${this.#pageSize} bytes`;
      throw unexpected(reader, at, 'configuration', 'target page bits', expected, targetPageBits);
    }
    this.#capabilities = configuration.capabilities ?? [];
  }

  /** The section of RAM at stream offset `at`. */
  beginRam(reader: Reader, section: SectionHeader, at: number): void {
    this.ram ??= new RamSections();
    this.ram.begin(reader, section, at, {
      pageSize: this.#pageSize,
      pageSizeSummary: this.order.pageSizeSummary,
      ignoreShared: this.#capabilities.includes('x-ignore-shared'),
      mappedRam: this.#capabilities.includes('mapped-ram'),
    });
  }

  /** Postcopy goes on over a new connection: sections and blocks are still known, the block that CONTINUE refers to is not. */
  reconnected(): void {
    this.order.pause();
    this.sections.reopen();
    this.ram?.forgetBlock();
  }
}
