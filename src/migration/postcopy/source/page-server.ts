import { asError, nowMs, WakeUp, yieldToEventLoop } from '../../../base/index.ts';
import type { SettingsView } from '../../../settings/index.ts';
import { Pacer } from '../../../transport/index.ts';
import { PING_ARRIVED } from '../../return-path.ts';
import type { StreamWriter } from '../../source/stream-writer.ts';
import type { Statistics } from '../../statistics.ts';
import { BackgroundWindow } from './background-window.ts';
import type { PageLane } from './page-lane.ts';
import type { Place, RemainingRam } from './remaining-ram.ts';
import { UrgentLanes } from './urgent-lanes.ts';

/**
 * The background goes out in pieces of so many bytes at most. Between two of them requests are heard: a request waits for one piece at most, in user
 * space. Smaller ones cost throughput, as each is a system call and a turn of the event loop.
 */
const PIECE_BYTES = 64 * 1024;
/**
 * The background follows the guest to where it asks for pages if it has asked for another so near, bytes: one that jumps about gains nothing,
 * and a file is read anew at each place. Nor before it has pushed so much at the last such place.
 */
const FOLLOW_NEAR_BYTES = 1024 * 1024;
const FOLLOW_BYTES = 256 * 1024;

export interface PageServerParts {
  readonly ram: RemainingRam;
  readonly stream: StreamWriter;
  readonly settings: SettingsView;
  readonly statistics: Statistics;
  /** The main channel. */
  readonly background: PageLane;
  /** Preempt channels; none: requested pages go over the main channel, ahead of all others. */
  readonly urgent: readonly PageLane[];
  /** A host page on the main channel is broken off for a requested one, and finished later. Means something with preempt channels only. */
  readonly breakHuge: boolean;
  readonly targetPageSize: number;
}

/**
 * Sends what the destination does not have, over the channels of one connection: requested pages first, all others from where the last
 * requested one was on, since a guest goes on where it is.
 */
export class PageServer {
  readonly #parts: PageServerParts;
  readonly #urgent: UrgentLanes;
  readonly #pacer = new Pacer();
  readonly #window = new BackgroundWindow();
  /** The largest host page, bytes. */
  readonly #unitBytes: number;
  /** Where the background goes on. */
  readonly #cursor: Place = { block: 0, page: 0 };
  readonly #place: Place = { block: 0, page: 0 };
  /** The host page that the main channel began last was asked for, before it began or since. */
  #asked = false;
  /** Where a page was asked for last. */
  readonly #lastAsked: Place = { block: -1, page: 0 };
  /** Offset on the main channel from which on the background may follow the guest again. */
  #followFrom = 0;
  #failure: Error | undefined;
  readonly #news = new WakeUp();

  constructor(parts: PageServerParts) {
    this.#parts = parts;
    const { ram, urgent: lanes, targetPageSize } = parts;
    this.#urgent = new UrgentLanes({
      ram,
      lanes,
      targetPageSize,
      began: (place) => this.#follow(place),
      idle: () => {
        parts.statistics.progress();
        this.#answer();
        this.#news.wake();
      },
      failed: (error) => this.stop(error),
    });
    this.#unitBytes = Math.max(...ram.blocks.map(({ hostPages }) => hostPages)) * targetPageSize;
  }

  /** The destination wants pages (bytes; `block` undefined: of the block named last). Throws MIGRATION_PAGE_REQUEST. */
  request(block: string | undefined, start: number, length: number): void {
    const { background, urgent, statistics } = this.#parts;
    const ahead = urgent.length > 0 ? this.#urgent.unsent : background.output.unsent;
    statistics.requested(ahead, this.#window.onTheWay(background.output.offset));
    const added = this.#urgent.queue.add(block, start, length);
    this.#askFor(start, length);
    if (added === 0) return;
    if (urgent.length > 0) this.#answer();
    else this.#news.wake();
  }

  /** The background may be in the midst of what is asked for: then it gives way to nobody and goes on at once. */
  #askFor(start: number, length: number): void {
    const { background, targetPageSize } = this.#parts;
    if (!background.holds(this.#urgent.queue.named, start / targetPageSize, (start + length) / targetPageSize)) return;
    this.#asked = true;
    this.#news.wake();
  }

  /** The destination has answered PING_ARRIVED. */
  arrived(): void {
    this.#window.answered(nowMs());
    this.#news.wake();
  }

  /** Sends everything; `run` rejects with `error` if it has not. Idempotent. */
  stop(error: Error): void {
    this.#failure ??= error;
    this.#urgent.stop();
    this.#news.wake();
  }

  /**
   * Resolves when the channels have taken every page. Rejects when one of them has failed, or with what `stop` was given; then nothing of it
   * is under way any more.
   */
  async run(): Promise<void> {
    const { background, stream } = this.#parts;
    try {
      await stream.beginRam('part');
      this.#window.begin(background.output.offset, nowMs());
      this.#answer();
      while (await this.#step());
      await stream.endRam();
      await background.output.drained();
      await this.#urgent.drained();
    } catch (error) {
      this.stop(asError(error));
      while (this.#urgent.sending > 0) await this.#news.next();
      throw error;
    }
  }

  /** A piece on the main channel, or a wait for what it waits for. False: all is sent. */
  async #step(): Promise<boolean> {
    const { ram, background, settings, statistics } = this.#parts;
    this.#check();
    const isLast = ram.pages === 0 && !background.busy;
    if (isLast && this.#urgent.sending === 0) return false;
    if (isLast || !this.#mayPush()) {
      await this.#news.next();
      return true;
    }
    this.#pacer.rate = settings.parameter('max-postcopy-bandwidth');
    const delayMs = this.#urgent.queue.length > 0 || (background.busy && this.#asked) ? 0 : this.#delayMs();
    if (delayMs > 0) {
      await this.#news.next(delayMs);
      return true;
    }
    if (!background.busy) this.#next();
    await this.#piece();
    statistics.progress();
    await yieldToEventLoop();
    this.#check();
    return true;
  }

  /** How long pages that nobody has asked for have to wait, ms. */
  #delayMs(): number {
    const now = nowMs();
    return this.#pacer.delayMs(now) || this.#window.delayMs(this.#parts.background.output.offset, this.#unitBytes, now);
  }

  /** The background gives way to requested pages, unless these travel on its own channel or must wait for its host page. */
  #mayPush(): boolean {
    const { urgent, background, breakHuge } = this.#parts;
    if (urgent.length === 0) return true;
    if (background.busy && (this.#asked || !breakHuge)) return true;
    return this.#urgent.sending === 0 && this.#urgent.queue.length === 0;
  }

  /** Begins the next host page on the main channel: a requested one, or that of the cursor. False: there is none. */
  #next(): boolean {
    const { ram, background, urgent } = this.#parts;
    const place = urgent.length === 0 && this.#urgent.queue.next(this.#place) ? this.#place : undefined;
    if (place === undefined && !ram.seek(this.#cursor)) return false;
    background.begin(place ?? this.#cursor);
    this.#asked = place !== undefined;
    if (place !== undefined) this.#follow(place);
    else this.#cursor.page += ram.blocks[this.#cursor.block]!.hostPages;
    return true;
  }

  /** The guest is at `place`: if it was near before, the background goes on behind it. */
  #follow({ block, page }: Place): void {
    const { ram, background, targetPageSize } = this.#parts;
    const last = this.#lastAsked;
    const near = block === last.block && Math.abs(page - last.page) * targetPageSize <= FOLLOW_NEAR_BYTES;
    last.block = block;
    last.page = page;
    if (!near || background.output.offset < this.#followFrom) return;
    this.#followFrom = background.output.offset + FOLLOW_BYTES;
    this.#cursor.block = block;
    this.#cursor.page = page + ram.blocks[block]!.hostPages;
  }

  /** Stages and sends a piece on the main channel: requested pages and no others, or others until one is requested. */
  async #piece(): Promise<void> {
    const { background } = this.#parts;
    const { output } = background;
    const start = output.offset;
    const end = start + Math.min(PIECE_BYTES, this.#window.step);
    const asked = this.#asked;
    do {
      const wait = background.write(end);
      if (wait !== undefined) await wait;
    } while (
      !background.busy &&
      output.offset < end &&
      this.#urgent.queue.length > 0 === asked &&
      this.#mayPush() &&
      this.#next()
    );
    if (!background.busy && this.#window.isMarkDue(output.offset)) await this.#mark();
    const sent = output.flush();
    if (sent !== undefined) await sent;
    this.#pacer.spend(output.offset - start);
    if (!background.busy) this.#answer();
  }

  /** Commands stand between sections, and no host page goes on in another section. */
  async #mark(): Promise<void> {
    const { stream, background } = this.#parts;
    await stream.endRam();
    await stream.ping(PING_ARRIVED);
    this.#window.mark(background.output.offset, nowMs());
    await stream.beginRam('part');
  }

  /** Has idle preempt channels send requested pages. */
  #answer(): void {
    const { background, breakHuge } = this.#parts;
    // What waits when the connection is lost is asked for again over the next one.
    if (this.#failure !== undefined || (!breakHuge && background.busy)) return;
    this.#urgent.answer();
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }
}
