import { clearBit, fillBitmap, newBitmap, nextSetBit, nowMs, yieldToEventLoop } from '../../base/index.ts';
import type { PageWindow, RamBlock, SourceMachine } from '../../machine/index.ts';
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
import type { XbzrleCache } from './xbzrle-cache.ts';

/** The event loop gets its turn at least this often while pages are sent, ms: QMP and the return path live there. */
const LOOP_SHARE_MS = 8;

/**
 * The migration bitmap and the loop that empties it. Bits are set by `sync` from the machine's dirty log and cleared here just before
 * a page is read, so a store that comes while the page is copied sets the bit again (through the log) and is sent in a later round.
 * One channel keeps order: a page's later copy always follows its earlier one.
 */
export class RamSaver {
  readonly #machine: SourceMachine;
  readonly #output: ChannelOutput;
  readonly #statistics: Statistics;
  readonly #blocks: readonly RamBlock[];
  readonly #pageSize: number;
  readonly #zeroPage: Buffer;
  readonly #names: readonly Buffer[];
  readonly #bitmaps: readonly Uint32Array[];
  readonly #pageCounts: readonly number[];
  /** Number of the block's first page among all pages: the key of the xbzrle cache. */
  readonly #firstKeys: readonly number[];
  /** Where the machine knows without looking which pages may have content (a checkpoint). */
  readonly #maps: readonly (Uint32Array | undefined)[];
  readonly #xbzrle: XbzrleCache | undefined;
  readonly #scratch: Buffer;
  #xbzrleActive = false;
  #dirty = 0;
  /** Where the round goes on. */
  #block = 0;
  #page = 0;
  /** Block that CONTINUE refers to on this channel; -1 before the first record. */
  #named = -1;

  constructor(options: {
    machine: SourceMachine;
    /** The blocks whose pages are sent (with x-ignore-shared, not all of the machine's). */
    blocks: readonly RamBlock[];
    output: ChannelOutput;
    statistics: Statistics;
    xbzrle: XbzrleCache | undefined;
  }) {
    this.#machine = options.machine;
    this.#blocks = options.blocks;
    this.#output = options.output;
    this.#statistics = options.statistics;
    this.#xbzrle = options.xbzrle;
    this.#pageSize = options.machine.targetPageSize;
    this.#zeroPage = Buffer.alloc(this.#pageSize);
    this.#scratch = Buffer.alloc(this.#pageSize);
    this.#names = this.#blocks.map((block) => Buffer.from(block.idstr, 'latin1'));
    this.#pageCounts = this.#blocks.map((block) => block.usedLength / this.#pageSize);
    this.#bitmaps = this.#pageCounts.map((count) => newBitmap(count));
    this.#maps = this.#blocks.map((block) => options.machine.pageMap?.(block.index));
    let key = 0;
    this.#firstKeys = this.#pageCounts.map((count) => {
      const first = key;
      key += count;
      return first;
    });
    for (const [index, map] of this.#bitmaps.entries()) fillBitmap(map, this.#pageCounts[index]!);
    this.#dirty = key;
    this.#statistics.remainingPages = key;
  }

  /** Pages still to send, as known since the last `sync`. */
  get dirtyPages(): number {
    return this.#dirty;
  }

  /** Takes the bits dirtied since the last call into the bitmap; returns how many pages became dirty. */
  sync(): number {
    const log = this.#machine.dirtyLog;
    if (log === undefined) return 0;
    let dirtied = 0;
    for (const [index, block] of this.#blocks.entries()) dirtied += log.harvest(block.index, this.#bitmaps[index]!);
    this.#dirty += dirtied;
    this.#statistics.remainingPages = this.#dirty;
    return dirtied;
  }

  /** xbzrle pays from the second round on, when the destination has a copy of every page. */
  allowXbzrle(allowed: boolean): void {
    this.#xbzrleActive = allowed && this.#xbzrle !== undefined;
  }

  /** Sends dirty pages in order until none is left (true) or `untilMs` has passed (false). */
  async send(untilMs: number): Promise<boolean> {
    const output = this.#output;
    let yieldAtMs = nowMs() + LOOP_SHARE_MS;
    while (this.#dirty > 0) {
      const page = nextSetBit(this.#bitmaps[this.#block]!, this.#page, this.#pageCounts[this.#block]!);
      if (page < 0) {
        this.#page = 0;
        this.#block = (this.#block + 1) % this.#blocks.length;
        continue;
      }
      this.#page = page;
      const zeroEnd = this.#zeroEnd(page);
      let window: PageWindow | undefined;
      if (zeroEnd === page) {
        const found = this.#machine.window(this.#blocks[this.#block]!.index, page);
        window = found instanceof Promise ? await found : found;
      }
      const end = window === undefined ? zeroEnd : window.firstPage + window.pageCount;
      while (!this.#fill(window, end)) {
        this.#statistics.progress(output.offset);
        const busy = output.flush();
        if (busy !== undefined) await busy;
        const now = nowMs();
        if (now >= untilMs) return this.#dirty === 0;
        if (now >= yieldAtMs) {
          await yieldToEventLoop();
          yieldAtMs = nowMs() + LOOP_SHARE_MS;
        }
      }
    }
    this.#statistics.progress(output.offset);
    return true;
  }

  /** End of the run of pages from `page` on that the machine knows to be zero without a look: `page` if it does not. */
  #zeroEnd(page: number): number {
    const map = this.#maps[this.#block];
    if (map === undefined) return page;
    const content = nextSetBit(map, page, this.#pageCounts[this.#block]!);
    return content < 0 ? this.#pageCounts[this.#block]! : content;
  }

  /**
   * The hot loop: writes records from the current page on until `end` or the end of the block (true) or until the buffer is full
   * (false). Without a window all pages are zero.
   */
  #fill(window: PageWindow | undefined, end: number): boolean {
    const output = this.#output;
    const out = output.buffer;
    const pageSize = this.#pageSize;
    const limit = output.limit - RAM_RECORD_HEADER_MAX - pageSize;
    const block = this.#block;
    const bitmap = this.#bitmaps[block]!;
    const firstKey = this.#firstKeys[block]!;
    const windowEnd = Math.min(end, this.#pageCounts[block]!);
    const bytes = window?.bytes ?? this.#zeroPage;
    const firstPage = window?.firstPage ?? 0;
    const statistics = this.#statistics;
    // Pages go from guest memory to the kernel where that is possible; a cache of what was sent needs its own copy, though.
    const address = output.refers && this.#xbzrle === undefined ? window?.address : undefined;
    let room = address === undefined ? Number.POSITIVE_INFINITY : output.referRoom;
    let pos = output.pos;
    let page = this.#page;
    while (page >= 0 && page < windowEnd && pos <= limit && room > 0) {
      clearBit(bitmap, page);
      this.#dirty--;
      const name = this.#named === block ? undefined : this.#names[block]!;
      const at = window === undefined ? 0 : (page - firstPage) * pageSize;
      // A look at three bytes spares most pages with content the comparison, which costs as much as a copy.
      const maybeZero = (bytes[at]! | bytes[at + pageSize / 2 + 8]! | bytes[at + pageSize - 1]!) === 0;
      if (maybeZero && bytes.compare(this.#zeroPage, 0, pageSize, at, at + pageSize) === 0) {
        pos = writeZeroRecord(out, pos, page * pageSize, name);
        this.#named = block;
        statistics.zeroPages++;
        this.#xbzrle?.storeZero(firstKey + page);
      } else if (this.#xbzrleActive) {
        pos = this.#writeDelta(out, pos, page, firstKey + page, name, bytes, at);
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
      page = nextSetBit(bitmap, page + 1, windowEnd);
    }
    output.pos = pos;
    statistics.remainingPages = this.#dirty;
    this.#page = page < 0 ? windowEnd : page;
    return this.#page >= windowEnd;
  }

  /** An XBZRLE record, or the whole page if it is not in the cache or differs too much, or nothing if it did not change. */
  #writeDelta(
    out: Buffer,
    pos: number,
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
        this.#named = this.#block;
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
    this.#named = this.#block;
    statistics.normalPages++;
    return bodyAt + pageSize;
  }
}
