import { clearBit, isZeroPage, nextSetBit, nowMs } from '../../base/index.ts';
import type { PageChannels } from '../../dataplane/index.ts';
import { type ChannelOutput, Pacer } from '../../transport/index.ts';
import { RAM_RECORD_HEADER_MAX, writeZeroRecord } from '../../wire/index.ts';
import type { Statistics } from '../statistics.ts';
import type { DirtyPages } from './dirty-pages.ts';
import type { ZeroPages } from './multifd.ts';
import type { PageContent, PageRoute } from './page-route.ts';
import type { MeetingChannels } from './stream-writer.ts';

/** So many pages are given to the channels before the event loop is looked after. */
const PAGES_PER_TURN = 4096;
/** With a limit of bandwidth, pages between two looks at the clock. */
const PAGES_PER_PIECE = 128;
/** Longest wait for the limit of bandwidth before the clock is looked at again, ms: the limit may change. */
const PACE_MS = 20;

/**
 * Pages as packets on parallel channels, or copied by them into a file or out of one; zero pages that are found or known here (zero-page-detection legacy, a checkpoint's map) as records on
 * the main channel. Where channels copy, they do with zero pages too what is to be done.
 *
 * Order: a page becomes dirty again only by a harvest of the log, and between the sending of any page and the next harvest stands a `sync`
 * (`settled` says so, RamSaver insists). On each channel all earlier pages go before that SYNC packet and all later ones behind it, and on
 * main all earlier records before the mark of the point (EOS or MULTIFD_FLUSH) and all later ones behind it. A receiver takes nothing behind a
 * point, from no channel and not from main, before all of them have come to it. So a later copy is always put in place after an earlier one.
 */
export class MultifdPages implements PageRoute, MeetingChannels {
  readonly discipline: MeetingChannels['discipline'];
  readonly readsPages: boolean;
  readonly #channels: PageChannels;
  readonly #output: ChannelOutput;
  readonly #statistics: Statistics;
  readonly #pageSize: number;
  readonly #zeroPage: Buffer;
  readonly #names: readonly Buffer[];
  readonly #pacer = new Pacer();
  /** Pages given to the channels; and how many of them stand before the last SYNC. */
  #added = 0;
  #synced = 0;
  /** As much of `#taken` the pacer knows of. */
  #spent = 0;
  /** All queues of the channels were full. */
  #full = false;
  /** Block that CONTINUE refers to on the main channel; -1 before the first record. */
  #named = -1;

  constructor(options: {
    readonly channels: PageChannels;
    readonly discipline: MeetingChannels['discipline'];
    readonly zeroPages: ZeroPages;
    readonly dirty: DirtyPages;
    /** Of the main channel. */
    readonly output: ChannelOutput;
    readonly statistics: Statistics;
  }) {
    this.#channels = options.channels;
    this.discipline = options.discipline;
    this.readsPages = options.zeroPages === 'legacy';
    this.#output = options.output;
    this.#statistics = options.statistics;
    this.#pageSize = options.dirty.pageSize;
    this.#zeroPage = Buffer.alloc(this.#pageSize);
    this.#names = options.dirty.blocks.map((block) => Buffer.from(block.idstr, 'latin1'));
  }

  get settled(): boolean {
    return this.#added === this.#synced;
  }

  async sync(): Promise<void> {
    await this.#channels.sync();
    this.#synced = this.#added;
  }

  get rateLimit(): number {
    return this.#pacer.rate;
  }

  set rateLimit(bytesPerSecond: number) {
    // What went without a limit is no debt.
    if (this.#pacer.rate === 0) this.#spent = this.#taken;
    this.#pacer.rate = bytesPerSecond;
  }

  fill(dirty: DirtyPages, content: PageContent, end: number): boolean {
    this.#full = false;
    if (this.#paceMs() > 0) return false;
    let left = this.rateLimit === 0 ? PAGES_PER_TURN : PAGES_PER_PIECE;
    const window = typeof content === 'object' ? content : undefined;
    const block = dirty.blocks[dirty.block]!.index;
    const bitmap = dirty.bitmaps[dirty.block]!;
    let page = dirty.page;
    for (; page >= 0 && page < end && left > 0; left--) {
      const at = window === undefined ? 0 : (page - window.firstPage) * this.#pageSize;
      if (this.#isForMain(content) || (window !== undefined && isZeroPage(window.bytes, at, this.#zeroPage))) {
        if (!this.#hasRoom) break;
        this.#writeZero(dirty.block, page);
      } else if (this.#channels.add(block, page)) {
        this.#added++;
      } else {
        this.#full = true;
        break;
      }
      clearBit(bitmap, page);
      dirty.count--;
      page = nextSetBit(bitmap, page + 1, end);
    }
    dirty.page = page < 0 ? end : page;
    return dirty.page >= end;
  }

  room(): Promise<void> | undefined {
    if (!this.#hasRoom) return this.#output.flush();
    const paceMs = this.#paceMs();
    if (paceMs > 0) return new Promise((resolve) => setTimeout(resolve, Math.min(paceMs, PACE_MS)));
    return this.#full ? this.#channels.room() : undefined;
  }

  /** Of the main channel, for a record. */
  get #hasRoom(): boolean {
    return this.#output.room(RAM_RECORD_HEADER_MAX);
  }

  #isForMain(content: PageContent): boolean {
    return content === 'zero' && this.discipline !== 'unseen round';
  }

  #writeZero(block: number, page: number): void {
    const { buffer, pos } = this.#output;
    const name = this.#named === block ? undefined : this.#names[block]!;
    this.#output.pos = writeZeroRecord(buffer, pos, page * this.#pageSize, name);
    this.#named = block;
    this.#statistics.zeroPages++;
  }

  /** How long the limit of bandwidth wants us to wait, ms. */
  #paceMs(): number {
    if (this.rateLimit === 0) return 0;
    const taken = this.#taken;
    this.#pacer.spend(taken - this.#spent);
    this.#spent = taken;
    return this.#pacer.delayMs(nowMs());
  }

  /** Bytes sent, and those of pages in queues as if they were to be sent whole. */
  get #taken(): number {
    const { bytes, normalPages, zeroPages } = this.#channels.totals;
    return bytes + (this.#added - normalPages - zeroPages) * this.#pageSize;
  }
}
