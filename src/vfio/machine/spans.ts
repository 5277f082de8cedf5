/** When which device did what: the time line of a migration, of one side. */
import { nowMs } from '../../base/index.ts';

export type SpanKind =
  /** Source: from PRE_COPY on; from the stop of the guest to STOP_COPY; reading the rest. */
  | 'precopy'
  | 'stop'
  | 'save'
  /** Destination: the first write to the last; the configuration; to RUNNING. */
  | 'load'
  | 'config'
  | 'start';

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

  clear(): void {
    this.#all = [];
  }

  begin(device: string, kind: SpanKind): Span {
    const span: Span = { device, kind, startMs: nowMs(), endMs: undefined, bytes: 0 };
    this.#all.push(span);
    return span;
  }

  /** Over for now; a span that goes on is ended again. */
  end(span: Span, bytes = 0): void {
    span.endMs = nowMs();
    span.bytes += bytes;
  }
}
