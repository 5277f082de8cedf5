/** When which device did what: the time line of a migration, of one side. */
import { nowMs } from '../../base/index.ts';

export interface SpanDeclaration {
  /** Where it is recorded. */
  readonly side: 'source' | 'destination';
  readonly doc: string;
}

/** What is recorded of a device; QMP, JSON and drawings follow from it. */
export const SPANS = {
  precopy: { side: 'source', doc: 'read while the guest runs: from PRE_COPY to the stop of the guest' },
  stop: { side: 'source', doc: 'from the stop of the guest until all devices have stopped' },
  save: { side: 'source', doc: 'read after the stop' },
  send: { side: 'source', doc: 'what is read after the stop goes out: the first of it to the last' },
  initial: {
    side: 'destination',
    doc: 'initial data (switchover-ack): from its first write until the device is ready for the switchover',
  },
  preload: { side: 'destination', doc: 'written while the guest runs at the source' },
  receive: { side: 'destination', doc: 'what was saved after the stop comes in: the first of it to the last' },
  load: { side: 'destination', doc: 'written after the stop, and checked by the device' },
  config: { side: 'destination', doc: 'its configuration is loaded' },
  start: { side: 'destination', doc: 'until devices and guest run' },
} as const satisfies Readonly<Record<string, SpanDeclaration>>;

export type SpanKind = keyof typeof SPANS;

export const SPAN_KINDS = Object.keys(SPANS) as readonly SpanKind[];

export interface Span {
  readonly device: string;
  readonly kind: SpanKind;
  /** Monotonic ms, the same clock in all processes of a host. */
  readonly startMs: number;
  /** Undefined: it is not over. */
  endMs: number | undefined;
  /** Of the device's state, if any. */
  bytes: number;
}

export class Spans {
  #all: Span[] = [];

  get all(): readonly Span[] {
    return this.#all;
  }

  /** A migration of the device begins: what is known of an earlier one is forgotten. */
  clear(device: string): void {
    this.#all = this.#all.filter((span) => span.device !== device);
  }

  begin(device: string, kind: SpanKind, startMs = nowMs()): Span {
    const span: Span = { device, kind, startMs, endMs: undefined, bytes: 0 };
    this.#all.push(span);
    return span;
  }

  /** It has not been, after all. */
  drop(span: Span): void {
    this.#all = this.#all.filter((one) => one !== span);
  }

  /** Over for now; a span that goes on is ended again. */
  end(span: Span, bytes = 0, endMs = nowMs()): void {
    span.endMs = Math.max(span.endMs ?? endMs, endMs);
    span.bytes += bytes;
  }
}
