/** Beside the round trip itself, what is sent may be on its way for so long, ms: the far end must not run dry while an answer comes. */
const SLACK_MS = 0.5;
/** The same for long round trips, as a share of them. */
const SLACK_SHARE = 0.5;
/**
 * Busy hosts answer when it is their turn: what a round trip takes beyond what the bytes ahead of it explain is added, up to so many bytes. More would fill the
 * link also where they are very busy, but a queue that has once formed on a slow link is taken for such a host, and stays.
 */
const UNSTEADY_BYTES_MAX = 160 * 1024;
/** Gain of the running mean of that excess. */
const EXCESS_GAIN = 1 / 8;
const BYTES_MIN = 64 * 1024;
/** Marks in a window; one mark stands behind so many bytes at least. */
const MARKS_PER_WINDOW = 4;
const STEP_BYTES_MIN = 16 * 1024;
/** Answers that are awaited at most: whoever gives none is asked no more. */
const MARKS_MAX = 64;
/** Who has not answered for so long, ms, is not waited for: the sockets' own limits hold, and the watch for a destination that stalls. */
const ANSWER_MS = 500;
/** A rate that was seen once counts for so much less at each answer. */
const RATE_FADES = 0.98;

interface Mark {
  readonly offset: number;
  readonly sentMs: number;
  /** What was known to be there when the mark was sent, and since when. */
  readonly arrived: number;
  readonly arrivedMs: number;
}

/**
 * How much of the background may be on its way: in sockets, on the link and in the destination, where it waits for being placed. The guest may
 * ask for a page just when it has left, and then nothing makes it come sooner; and where requested pages share the link, they queue behind it. The
 * kernels at both ends would take megabytes. So a mark stands behind every few pages, a PING, which the destination answers when it has come so far;
 * and no more is sent ahead of the answers than the shortest round trip at the rate of arrival needs, and some slack.
 */
export class BackgroundWindow {
  readonly #marks: Mark[] = [];
  #arrived = 0;
  #arrivedMs = 0;
  #lastMark = 0;
  /** Of the round trips. */
  #shortestMs = Number.POSITIVE_INFINITY;
  #excessMs = 0;
  #bytesPerMs = 0;

  /** Whatever is before `offset` (bytes of the stream) counts as there. */
  begin(offset: number, nowMs: number): void {
    this.#arrived = offset;
    this.#arrivedMs = nowMs;
    this.#lastMark = offset;
  }

  /** Bytes. */
  get size(): number {
    if (this.#bytesPerMs === 0) return BYTES_MIN;
    const slackMs = Math.max(SLACK_MS, this.#shortestMs * SLACK_SHARE);
    const steady = this.#bytesPerMs * (this.#shortestMs + slackMs);
    const unsteady = this.#bytesPerMs * (this.#shortestMs + this.#excessMs);
    return Math.max(BYTES_MIN, steady, Math.min(unsteady, UNSTEADY_BYTES_MAX));
  }

  /** A mark is due behind so many bytes. */
  get step(): number {
    return Math.max(STEP_BYTES_MIN, Math.floor(this.size / MARKS_PER_WINDOW));
  }

  /** Bytes of the stream up to `offset` that are not known to be there. */
  onTheWay(offset: number): number {
    return offset - this.#arrived;
  }

  isMarkDue(offset: number): boolean {
    return offset - this.#lastMark >= this.step && this.#marks.length < MARKS_MAX;
  }

  /** A mark ends at `offset`. */
  mark(offset: number, nowMs: number): void {
    this.#marks.push({ offset, sentMs: nowMs, arrived: this.#arrived, arrivedMs: this.#arrivedMs });
    this.#lastMark = offset;
  }

  /** The oldest mark is answered; whoever answers what nobody has asked says nothing. */
  answered(nowMs: number): void {
    const mark = this.#marks.shift();
    if (mark === undefined) return;
    const roundTripMs = nowMs - mark.sentMs;
    this.#shortestMs = Math.min(this.#shortestMs, roundTripMs);
    // Our own queue makes a round trip longer too: that is no reason to make it longer still.
    const queuedMs = this.#bytesPerMs === 0 ? 0 : (mark.offset - mark.arrived) / this.#bytesPerMs;
    this.#excessMs += (Math.max(0, roundTripMs - this.#shortestMs - queuedMs) - this.#excessMs) * EXCESS_GAIN;
    const spanMs = nowMs - mark.arrivedMs;
    const rate = spanMs > 0 ? (mark.offset - mark.arrived) / spanMs : 0;
    this.#bytesPerMs = Math.max(rate, this.#bytesPerMs * RATE_FADES);
    this.#arrived = mark.offset;
    this.#arrivedMs = nowMs;
  }

  /**
   * How long to wait for an answer before more is sent from `offset` on, ms; 0: go on. `unitBytes` cannot be marked inside (a host page): so much more may be
   * on its way.
   */
  delayMs(offset: number, unitBytes: number, nowMs: number): number {
    const oldest = this.#marks[0];
    if (oldest === undefined || this.onTheWay(offset) < this.size + unitBytes) return 0;
    return Math.max(0, oldest.sentMs + ANSWER_MS - nowMs);
  }
}
