import { clearBit, isZeroPage, nextSetBit } from '../../base/index.ts';
import type { ChannelOutput } from '../../transport/index.ts';
import {
  RAM_RECORD_HEADER_MAX,
  writePageHeader,
  writeXbzrleHeader,
  writeZeroRecord,
  xbzrleEncode,
  xbzrleHeaderSize,
} from '../../wire/index.ts';
import type { Statistics } from '../statistics.ts';
import type { DirtyPages } from './dirty-pages.ts';
import type { PageContent, PageRoute } from './page-route.ts';
import type { XbzrleCache } from './xbzrle-cache.ts';

/**
 * Pages as records on the main channel: ZERO, PAGE or XBZRLE. One channel keeps order: a page's later copy always follows its earlier one.
 */
export class MainPages implements PageRoute {
  readonly readsPages = true;
  readonly settled = true;
  readonly #output: ChannelOutput;
  readonly #statistics: Statistics;
  readonly #pageSize: number;
  readonly #findZeroPages: boolean;
  readonly #zeroPage: Buffer;
  readonly #names: readonly Buffer[];
  /** Number of the block's first page among all pages: the key of the xbzrle cache. */
  readonly #firstKeys: readonly number[];
  readonly #xbzrle: XbzrleCache | undefined;
  readonly #scratch: Buffer;
  #xbzrleActive = false;
  /** Block that CONTINUE refers to on this channel; -1 before the first record. */
  #named = -1;

  constructor(options: {
    readonly dirty: DirtyPages;
    readonly output: ChannelOutput;
    readonly statistics: Statistics;
    /** Else zero pages are sent like all others, except those that the machine knows without a look. */
    readonly findZeroPages: boolean;
    readonly xbzrle: XbzrleCache | undefined;
  }) {
    const { blocks, pageSize, pageCounts } = options.dirty;
    this.#output = options.output;
    this.#statistics = options.statistics;
    this.#pageSize = pageSize;
    this.#findZeroPages = options.findZeroPages;
    this.#xbzrle = options.xbzrle;
    this.#zeroPage = Buffer.alloc(pageSize);
    this.#scratch = Buffer.alloc(pageSize);
    this.#names = blocks.map((block) => Buffer.from(block.idstr, 'latin1'));
    let key = 0;
    this.#firstKeys = pageCounts.map((count) => {
      const first = key;
      key += count;
      return first;
    });
  }

  get rateLimit(): number {
    return this.#output.rateLimit;
  }

  set rateLimit(bytesPerSecond: number) {
    this.#output.rateLimit = bytesPerSecond;
  }

  /** xbzrle pays from the second round on, when the destination has a copy of every page. */
  allowXbzrle(allowed: boolean): void {
    this.#xbzrleActive = allowed && this.#xbzrle !== undefined;
  }

  room(): Promise<void> | undefined {
    return this.#output.flush();
  }

  fill(dirty: DirtyPages, content: PageContent, end: number): boolean {
    const output = this.#output;
    const out = output.buffer;
    const pageSize = this.#pageSize;
    const limit = output.limit - RAM_RECORD_HEADER_MAX - pageSize;
    const block = dirty.block;
    const bitmap = dirty.bitmaps[block]!;
    const firstKey = this.#firstKeys[block]!;
    const window = typeof content === 'object' ? content : undefined;
    const bytes = window?.bytes ?? this.#zeroPage;
    const firstPage = window?.firstPage ?? 0;
    const statistics = this.#statistics;
    // Pages go from guest memory to the kernel where that is possible; a cache of what was sent needs its own copy, though.
    const address = output.refers && this.#xbzrle === undefined ? window?.address : undefined;
    let room = address === undefined ? Number.POSITIVE_INFINITY : output.referRoom;
    let pos = output.pos;
    let page = dirty.page;
    while (page >= 0 && page < end && pos <= limit && room > 0) {
      clearBit(bitmap, page);
      dirty.count--;
      const name = this.#named === block ? undefined : this.#names[block]!;
      const at = window === undefined ? 0 : (page - firstPage) * pageSize;
      if (window === undefined || (this.#findZeroPages && isZeroPage(bytes, at, this.#zeroPage))) {
        pos = writeZeroRecord(out, pos, page * pageSize, name);
        this.#named = block;
        statistics.zeroPages++;
        this.#xbzrle?.storeZero(firstKey + page);
      } else if (this.#xbzrleActive) {
        pos = this.#writeDelta(out, pos, block, page, firstKey + page, name, bytes, at);
      } else {
        pos = writePageHeader(out, pos, page * pageSize, name);
        if (address !== undefined) {
          output.pos = pos;
          output.refer(address + at, pageSize);
          room--;
        } else {
          bytes.copy(out, pos, at, at + pageSize);
          this.#xbzrle?.store(firstKey + page, out, pos);
          pos += pageSize;
        }
        this.#named = block;
        statistics.normalPages++;
      }
      page = nextSetBit(bitmap, page + 1, end);
    }
    output.pos = pos;
    dirty.page = page < 0 ? end : page;
    return dirty.page >= end;
  }

  /** An XBZRLE record, or the whole page if it is not in the cache or differs too much, or nothing if it did not change. */
  #writeDelta(
    out: Buffer,
    pos: number,
    block: number,
    page: number,
    key: number,
    name: Buffer | undefined,
    bytes: Buffer,
    at: number,
  ): number {
    const cache = this.#xbzrle!;
    const statistics = this.#statistics;
    const pageSize = this.#pageSize;
    const offset = page * pageSize;
    // The guest runs: from here on only this snapshot of the page counts.
    bytes.copy(this.#scratch, 0, at, at + pageSize);
    const cached = cache.find(key);
    if (cached >= 0) {
      const bodyAt = pos + xbzrleHeaderSize(name);
      const length = xbzrleEncode(cache.bytes, cached, this.#scratch, 0, pageSize, out, bodyAt, bodyAt + pageSize);
      if (length === 0) return pos;
      cache.store(key, this.#scratch, 0);
      if (length > 0) {
        writeXbzrleHeader(out, pos, offset, name, length);
        this.#named = block;
        statistics.xbzrlePages++;
        statistics.xbzrleBytes += length;
        return bodyAt + length;
      }
      statistics.xbzrleOverflows++;
    } else {
      statistics.xbzrleCacheMisses++;
      cache.store(key, this.#scratch, 0);
    }
    const bodyAt = writePageHeader(out, pos, offset, name);
    this.#scratch.copy(out, bodyAt);
    this.#named = block;
    statistics.normalPages++;
    return bodyAt + pageSize;
  }
}
