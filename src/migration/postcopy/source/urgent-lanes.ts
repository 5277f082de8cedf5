import { asError, nowMs, yieldToEventLoop } from '../../../base/index.ts';
import { LaneChoice } from './lane-choice.ts';
import type { PageLane } from './page-lane.ts';
import type { Place, RemainingRam } from './remaining-ram.ts';
import { RequestQueue } from './request-queue.ts';

/** As much of a page goes out at once, bytes. */
const PIECE_BYTES = 64 * 1024;
/** A lane that answers requests without waiting for its peer gives others a turn at least this often, ms. */
const TURN_MS = 2;
/** In the midst of a huge page, behind which another lane may have to answer. A turn costs as much as tens of kilobytes. */
const HUGE_TURN_MS = 0.2;

export interface UrgentLanesParts {
  readonly ram: RemainingRam;
  /** One a preempt channel. */
  readonly lanes: readonly PageLane[];
  readonly targetPageSize: number;
  /** A requested page has begun. */
  readonly began: (place: Place) => void;
  /** A lane has nothing more to send: `answer` may have more for it. */
  readonly idle: () => void;
  /** A lane has failed. */
  readonly failed: (error: Error) => void;
}

/** What the destination has asked for, on its way over preempt channels. Without any of them only the queue is of use. */
export class UrgentLanes {
  readonly queue: RequestQueue;
  readonly #parts: UrgentLanesParts;
  readonly #choice: LaneChoice;
  readonly #place: Place = { block: 0, page: 0 };
  #sending = 0;
  #isStopped = false;

  constructor(parts: UrgentLanesParts) {
    const { ram, lanes, targetPageSize } = parts;
    this.#parts = parts;
    this.#choice = new LaneChoice(
      ram.blocks.map(({ hostPages }) => hostPages * targetPageSize),
      lanes.length,
    );
    this.queue = new RequestQueue(ram, targetPageSize, this.#choice.tiers);
  }

  /** Lanes that are sending. */
  get sending(): number {
    return this.#sending;
  }

  /** Bytes in user space that the next page finds before it at the least. */
  get unsent(): number {
    let fewest = Number.POSITIVE_INFINITY;
    for (const { output } of this.#parts.lanes) fewest = Math.min(fewest, output.unsent);
    return fewest;
  }

  /** Has idle lanes send what has been asked for, as far as it may begin now. */
  answer(): void {
    const { lanes, failed, idle } = this.#parts;
    while (!this.#isStopped && this.queue.length > 0) {
      const lane = this.#choice.idle(lanes);
      if (lane < 0 || !this.queue.next(this.#place, this.#choice.open)) return;
      this.#sending++;
      this.#send(lane)
        .catch((error: unknown) => failed(asError(error)))
        .finally(() => {
          this.#sending--;
          // A request may have come just behind the last look at the queue.
          idle();
        });
    }
  }

  /** No page is begun any more, and none is finished that waits for its turn. */
  stop(): void {
    this.#isStopped = true;
  }

  async drained(): Promise<void> {
    for (const { output } of this.#parts.lanes) await output.drained();
  }

  /** The page at `place`, then others that wait. As long as the machine and the kernel answer at once, so does this. */
  async #send(index: number): Promise<void> {
    const lane = this.#parts.lanes[index]!;
    let turnedMs = nowMs();
    do {
      const turnMs = this.#begin(index, lane) ? HUGE_TURN_MS : TURN_MS;
      while (lane.busy && !this.#isStopped) {
        const wait = lane.write(lane.output.offset + PIECE_BYTES);
        if (wait !== undefined) await wait;
        const sent = lane.output.flush();
        if (sent !== undefined) await sent;
        if (nowMs() < turnedMs + turnMs) continue;
        await yieldToEventLoop();
        turnedMs = nowMs();
      }
      this.#choice.end(index);
    } while (!this.#isStopped && this.queue.next(this.#place, this.#choice.open));
  }

  /** Whether the page is a huge one, beside which there is another lane. */
  #begin(index: number, lane: PageLane): boolean {
    const { block } = this.#place;
    lane.begin(this.#place);
    this.#choice.begin(index, block);
    this.#parts.began(this.#place);
    return this.#choice.tiers[block]! > 0;
  }
}
