import { assert, nextClearBit, nextSetBit, nowMs, testBit, yieldToEventLoop } from '../../base/index.ts';
import type { SourceMachine } from '../../machine/index.ts';
import type { Statistics } from '../statistics.ts';
import type { DirtyPages } from './dirty-pages.ts';
import type { PageContent, PageRoute } from './page-route.ts';

/** The event loop gets its turn at least this often while pages are sent, ms: QMP and the return path live there. */
const LOOP_SHARE_MS = 8;

/** Empties the migration bitmap: finds the next dirty page, gets it from the machine and gives it to the route. */
export class RamSaver {
  readonly #machine: SourceMachine;
  readonly #dirty: DirtyPages;
  readonly #route: PageRoute;
  readonly #statistics: Statistics;
  /** Where the machine knows without looking which pages may have content (a checkpoint). */
  readonly #maps: readonly (Uint32Array | undefined)[];

  constructor(machine: SourceMachine, dirty: DirtyPages, route: PageRoute, statistics: Statistics) {
    this.#machine = machine;
    this.#dirty = dirty;
    this.#route = route;
    this.#statistics = statistics;
    this.#maps = dirty.blocks.map((block) => machine.pageMap?.(block.index));
    statistics.remainingPages = dirty.count;
  }

  /** Pages still to send, as known since the last `sync`. */
  get dirtyPages(): number {
    return this.#dirty.count;
  }

  /** What is left, for whoever sends it: this object is of no use afterwards. */
  handOver(): DirtyPages {
    assert(this.#route.settled, 'what is sent from now on may overtake nothing');
    return this.#dirty;
  }

  set rateLimit(bytesPerSecond: number) {
    this.#route.rateLimit = bytesPerSecond;
  }

  allowXbzrle(allowed: boolean): void {
    this.#route.allowXbzrle?.(allowed);
  }

  /** Takes the bits dirtied since the last call into the bitmap; returns how many pages became dirty. */
  async sync(): Promise<number> {
    assert(this.#route.settled, 'between two copies of a page the channels meet');
    const log = this.#machine.dirtyLog;
    await log?.collect?.();
    const dirtied = log === undefined ? 0 : this.#dirty.harvest(log);
    this.#statistics.remainingPages = this.#dirty.count;
    return dirtied;
  }

  /** The guest is stopped and all of RAM is sent. */
  complete(): void {
    assert(this.#dirty.count === 0 && this.#route.settled, 'the channels have met behind the last page');
  }

  /** Sends dirty pages in order until none is left (true) or `untilMs` has passed (false). */
  async send(untilMs: number): Promise<boolean> {
    const dirty = this.#dirty;
    const route = this.#route;
    let yieldAtMs = nowMs() + LOOP_SHARE_MS;
    while (dirty.count > 0) {
      dirty.find();
      const found = this.#content();
      const content = found instanceof Promise ? await found : found;
      const end = this.#end(content);
      while (!route.fill(dirty, content, end)) {
        this.#progress();
        const busy = route.room();
        if (busy !== undefined) await busy;
        const now = nowMs();
        if (now >= untilMs) return dirty.count === 0;
        if (now >= yieldAtMs) {
          await yieldToEventLoop();
          yieldAtMs = nowMs() + LOOP_SHARE_MS;
        }
      }
    }
    this.#progress();
    return true;
  }

  #progress(): void {
    this.#statistics.remainingPages = this.#dirty.count;
    this.#statistics.progress();
  }

  /** Of the current page and those behind it, up to `#end`. */
  #content(): PageContent | Promise<PageContent> {
    const { block, page } = this.#dirty;
    const map = this.#maps[block];
    if (map !== undefined && !testBit(map, page)) return 'zero';
    return this.#route.readsPages ? this.#machine.window(this.#dirty.blocks[block]!.index, page) : 'unread';
  }

  #end(content: PageContent): number {
    const { block, page, pageCounts } = this.#dirty;
    if (typeof content === 'object') return Math.min(content.firstPage + content.pageCount, pageCounts[block]!);
    const map = this.#maps[block];
    if (map === undefined) return pageCounts[block]!;
    if (content === 'unread') return nextClearBit(map, page, pageCounts[block]!);
    const next = nextSetBit(map, page, pageCounts[block]!);
    return next < 0 ? pageCounts[block]! : next;
  }
}
