import type { Progress } from '../porcelain/index.ts';
import { progressLine } from './render/progress-line.ts';

/** Where a command says how it goes: to a person, or as JSON Lines to a program. */
export interface Reporter {
  progress(progress: Progress): void;
  /** Something happened: `facts` for programs, `text` for people. */
  event(type: string, facts: object, text: string): void;
  /** The last word, once. */
  result(facts: object, text: string): void;
}

type Sink = Pick<NodeJS.WriteStream, 'write'>;

/** One JSON object a line on standard output; the last has `"type":"result"`. */
export class JsonReporter implements Reporter {
  readonly #out: Sink;

  constructor(out: Sink = process.stdout) {
    this.#out = out;
  }

  progress(progress: Progress): void {
    this.#line({ type: 'progress', ...progress });
  }

  event(type: string, facts: object): void {
    this.#line({ type, ...facts });
  }

  result(facts: object): void {
    this.#line({ type: 'result', ...facts });
  }

  #line(value: object): void {
    this.#out.write(
      `${JSON.stringify(value, (_, member) => (typeof member === 'bigint' ? String(member) : member))}\n`,
    );
  }
}

/** Without a terminal that redraws: a line of progress this often, ms, and whenever the status changes. */
const LINE_EVERY_MS = 5_000;
const CLEAR = '\r\x1b[K';

/** Progress and events on standard error (one line redrawn in place if that is a terminal), the result on standard output. */
export class HumanReporter implements Reporter {
  readonly #out: Sink;
  readonly #err: Sink & { readonly isTTY?: boolean; readonly columns?: number };
  #drawn = false;
  #lastLineMs = Number.NEGATIVE_INFINITY;
  #lastStatus = '';

  constructor(out: Sink = process.stdout, err: Sink & { isTTY?: boolean; columns?: number } = process.stderr) {
    this.#out = out;
    this.#err = err;
  }

  progress(progress: Progress): void {
    if (this.#err.isTTY === true) {
      // The last column stays free: a terminal may wrap when it is written.
      this.#err.write(CLEAR + progressLine(progress, (this.#err.columns ?? 80) - 1));
      this.#drawn = true;
      return;
    }
    const now = performance.now();
    if (progress.status === this.#lastStatus && now - this.#lastLineMs < LINE_EVERY_MS) return;
    this.#lastLineMs = now;
    this.#lastStatus = progress.status;
    this.#err.write(`${progressLine(progress)}\n`);
  }

  event(_type: string, _facts: object, text: string): void {
    this.#clear();
    this.#err.write(`${text}\n`);
  }

  result(_facts: object, text: string): void {
    this.#clear();
    this.#out.write(text);
  }

  #clear(): void {
    if (this.#drawn) this.#err.write(CLEAR);
    this.#drawn = false;
  }
}
