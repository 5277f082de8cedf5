import type { Span, Spans } from './spans.ts';

/** The time line of one device on its way out. */
export class OutgoingSpans {
  readonly #spans: Spans;
  readonly #name: string;
  #precopy: Span | undefined;
  #stop: Span | undefined;
  #save: Span | undefined;
  #send: Span | undefined;

  constructor(spans: Spans, name: string) {
    this.#spans = spans;
    this.#name = name;
  }

  /** A migration begins. */
  clear(): void {
    this.#spans.clear(this.#name);
    this.#stop = undefined;
    this.#send = undefined;
  }

  precopy(): void {
    this.#precopy = this.#spans.begin(this.#name, 'precopy');
  }

  stopping(): void {
    this.#stop = this.#spans.begin(this.#name, 'stop');
  }

  /** Before that, `precopyBytes` were read. */
  stopped(precopyBytes: number): void {
    if (this.#stop === undefined) return;
    this.#spans.end(this.#stop);
    this.#endPrecopy(precopyBytes, this.#stop.startMs);
  }

  notStopped(): void {
    if (this.#stop !== undefined) this.#spans.drop(this.#stop);
    this.#stop = undefined;
  }

  saving(): void {
    this.#save = this.#spans.begin(this.#name, 'save');
  }

  saved(bytes: number): void {
    if (this.#save !== undefined) this.#spans.end(this.#save, bytes);
  }

  /** It goes out, or more of it does. */
  sending(): void {
    this.#send ??= this.#spans.begin(this.#name, 'send');
  }

  sent(bytes = 0): void {
    if (this.#send !== undefined) this.#spans.end(this.#send, bytes);
  }

  /** The migration is over. */
  over(precopyBytes: number): void {
    this.#endPrecopy(precopyBytes);
  }

  #endPrecopy(bytes: number, endMs?: number): void {
    if (this.#precopy !== undefined) this.#spans.end(this.#precopy, bytes, endMs);
    this.#precopy = undefined;
  }
}
