import type { IncomingRam } from '../../../machine/index.ts';
import type { DirectSink, FreshRun } from '../../../wire/index.ts';
import { MigrationError } from '../../errors.ts';
import type { ReceivedPages } from './received-pages.ts';

export interface HostPageSinkParts {
  /** For messages. */
  readonly channel: string;
  readonly ram: IncomingRam;
  readonly received: ReceivedPages;
  readonly targetPageSize: number;
  /** The host page that begins at target page `page` is whole; it was not there before. */
  readonly placed: (block: number, page: number) => void;
}

/**
 * Where the pages of one channel go. Once the destination listens, the target pages of a host page come one after another and in order before
 * those of the next (qemu-wire 6.5); when the last is there the host page is placed. Of a page that is there already nothing is written: the
 * guest may have changed it.
 */
export class HostPageSink implements DirectSink {
  readonly #parts: HostPageSinkParts;
  readonly #direct: DirectSink | undefined;
  #listens = false;
  /** The host page under way: its block and first target page, and how many have come; 0: none. */
  #block = 0;
  #first = 0;
  #count = 0;
  #isThere = false;

  constructor(parts: HostPageSinkParts) {
    this.#parts = parts;
    this.#direct = 'fresh' in parts.ram ? (parts.ram as IncomingRam & DirectSink) : undefined;
  }

  /** From now on pages come in the way of a postcopy. */
  listen(): void {
    this.#listens = true;
  }

  /** The channel is lost: what has come of a host page is worth nothing. */
  reset(): void {
    this.#count = 0;
  }

  page(block: number, offset: number, from: Buffer, at: number): void {
    if (this.#listens) this.#begin(block, offset);
    if (!this.#isThere) this.#parts.ram.page(block, offset, from, at);
    if (this.#listens) this.#end();
  }

  zero(block: number, offset: number): void {
    if (this.#listens) this.#begin(block, offset);
    if (!this.#isThere) this.#parts.ram.zero(block, offset);
    if (this.#listens) this.#end();
  }

  read(block: number, offset: number, into: Buffer): void {
    this.#parts.ram.read(block, offset, into);
  }

  fresh(block: number, offset: number, pagesMax: number): FreshRun | undefined {
    return this.#listens ? undefined : this.#direct?.fresh(block, offset, pagesMax);
  }

  filled(block: number, offset: number, pageCount: number): void {
    this.#direct?.filled(block, offset, pageCount);
  }

  #begin(block: number, offset: number): void {
    const { received, targetPageSize } = this.#parts;
    const page = offset / targetPageSize;
    if (this.#count === 0) {
      const { hostPages } = received.blocks[block]!;
      if (page % hostPages !== 0) throw this.#misplaced(block, page, page - (page % hostPages));
      this.#block = block;
      this.#first = page;
    } else if (block !== this.#block || page !== this.#first + this.#count) {
      throw this.#misplaced(block, page, this.#first + this.#count);
    }
    // Also in the midst of a host page: it may have come over another channel, and the guest writes to it.
    this.#isThere = received.has(block, page);
  }

  #end(): void {
    const { received, placed } = this.#parts;
    if (++this.#count < received.blocks[this.#block]!.hostPages) return;
    this.#count = 0;
    if (this.#isThere) return;
    received.place(this.#block, this.#first);
    placed(this.#block, this.#first);
  }

  #misplaced(block: number, page: number, expected: number): MigrationError {
    const { channel, received } = this.#parts;
    const name = received.blocks[block]!.idstr;
    return new MigrationError(
      { code: 'MIGRATION_HOST_PAGE', block: name, page, expected },
      `${channel}: block ${name}: target page ${page} where ${expected} must come: host pages come whole, one after another`,
    );
  }
}
