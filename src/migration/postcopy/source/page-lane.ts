import { assert, isZeroPage, nextSetBit } from '../../../base/index.ts';
import type { PageSource, SourceMachine } from '../../../machine/index.ts';
import type { ChannelOutput } from '../../../transport/index.ts';
import { RAM_RECORD_HEADER_MAX, writePageHeader, writeZeroRecord } from '../../../wire/index.ts';
import type { Statistics } from '../../statistics.ts';
import type { Place, RemainingRam } from './remaining-ram.ts';

export interface PageLaneParts {
  readonly machine: SourceMachine;
  readonly ram: RemainingRam;
  readonly output: ChannelOutput;
  readonly statistics: Statistics;
  /** Where this lane's pages come from; each lane its own, as windows of one end with the next. */
  readonly pages: PageSource;
}

/**
 * Puts host pages on one channel: all records of a host page one after another, in order, before the next begins (qemu-wire 6.5). The guest
 * has stopped, so a page that the kernel reads late is as good as one that was copied. What is staged goes out with `output.flush`.
 */
export class PageLane {
  readonly output: ChannelOutput;
  readonly #ram: RemainingRam;
  readonly #statistics: Statistics;
  readonly #pages: PageSource;
  readonly #pageSize: number;
  readonly #zeroPage: Buffer;
  readonly #names: readonly Buffer[];
  /** Where the machine knows without looking which pages may have content. */
  readonly #maps: readonly (Uint32Array | undefined)[];
  /** The host page under way: an index in `ram.blocks`, the next target page and the end. */
  #block = 0;
  #page = 0;
  #end = 0;
  #first = 0;
  /** Block that CONTINUE refers to on this channel; -1 before the first record. */
  #named = -1;

  constructor({ machine, ram, output, statistics, pages }: PageLaneParts) {
    this.output = output;
    this.#ram = ram;
    this.#statistics = statistics;
    this.#pages = pages;
    this.#pageSize = machine.targetPageSize;
    this.#zeroPage = Buffer.alloc(this.#pageSize);
    this.#names = ram.blocks.map(({ idstr }) => Buffer.from(idstr, 'latin1'));
    this.#maps = ram.blocks.map(({ index }) => machine.pageMap?.(index));
  }

  /** A host page has been begun and is not all staged. */
  get busy(): boolean {
    return this.#page < this.#end;
  }

  /** Bytes that the peer has not taken yet, as far as can be told: a page finds them before it. */
  get ahead(): number {
    return this.output.unsent + (this.output.channel.inKernel?.() ?? 0);
  }

  /** Whether one of the target pages from `first` to `end` belongs to the host page under way. */
  holds(block: number, first: number, end: number): boolean {
    return this.busy && block === this.#block && first < this.#end && end > this.#first;
  }

  /** Begins with the host page at `place`, which must be dirty. */
  begin({ block, page }: Place): void {
    assert(!this.busy, 'one host page after another');
    this.#block = block;
    this.#first = this.#ram.take(block, page);
    this.#page = this.#first;
    this.#end = this.#first + this.#ram.blocks[block]!.hostPages;
    this.#statistics.remainingPages = this.#ram.pages;
  }

  /** Stages records of the host page under way until it is whole, `output.offset` has reached `until` or the buffer is full. */
  write(until: number): Promise<void> | undefined {
    const { index } = this.#ram.blocks[this.#block]!;
    while (this.busy && this.output.offset < until) {
      const zeroEnd = this.#zeroEnd();
      if (zeroEnd > this.#page) {
        if (!this.#fill(this.#zeroPage, undefined, zeroEnd, false)) return undefined;
        continue;
      }
      const window = this.#pages.window(index, this.#page);
      if (window instanceof Promise) return window.then(() => this.write(until));
      const { bytes, address, firstPage, pageCount } = window;
      const at = (this.#page - firstPage) * this.#pageSize;
      const end = Math.min(this.#end, firstPage + pageCount);
      if (!this.#fill(bytes.subarray(at), address === undefined ? undefined : address + at, end, true))
        return undefined;
    }
    return undefined;
  }

  /** End of the run of pages that the machine knows to be zero, at most the end of the host page. */
  #zeroEnd(): number {
    const map = this.#maps[this.#block];
    if (map === undefined) return this.#page;
    const content = nextSetBit(map, this.#page, this.#end);
    return content < 0 ? this.#end : content;
  }

  /** Records of the pages up to `end`, whose bytes begin at `bytes[0]` (all zero if not `hasContent`). False: the buffer is full. */
  #fill(bytes: Buffer, address: number | undefined, end: number, hasContent: boolean): boolean {
    const { output } = this;
    const pageSize = this.#pageSize;
    const out = output.buffer;
    const limit = output.limit - RAM_RECORD_HEADER_MAX - pageSize;
    const refers = output.refers && address !== undefined;
    for (let at = 0; this.#page < end; at += pageSize) {
      if (output.pos > limit || (refers && output.referRoom <= 0)) return false;
      const offset = this.#page * pageSize;
      const name = this.#named === this.#block ? undefined : this.#names[this.#block]!;
      this.#named = this.#block;
      if (!hasContent || isZeroPage(bytes, at, this.#zeroPage)) {
        output.pos = writeZeroRecord(out, output.pos, offset, name);
        this.#statistics.zeroPages++;
      } else {
        output.pos = writePageHeader(out, output.pos, offset, name);
        if (refers) output.refer(address + at, pageSize);
        else output.pos += bytes.copy(out, output.pos, at, at + pageSize);
        this.#statistics.normalPages++;
      }
      this.#page++;
    }
    return true;
  }
}
