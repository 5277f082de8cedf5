import { asError } from '../../base/index.ts';
import { type SettingsView, type TimedWait, WAITS } from '../../settings/index.ts';
import { inTime } from '../deadline.ts';
import { wrongState } from '../errors.ts';
import type { MigrationStatus } from '../host.ts';

export interface SourceWaitsParts {
  /** Read at each wait. */
  readonly settings: () => SettingsView;
  /** Of the migration's end, with its reason. */
  readonly signal: AbortSignal;
  readonly status: () => MigrationStatus;
  readonly move: (status: MigrationStatus) => void;
}

/** What a source waits for, one thing at a time: for a step of its peer, or for a person. */
export class SourceWaits {
  readonly #parts: SourceWaitsParts;
  #continue: (() => void) | undefined;
  /** As query-migrate shows it. */
  what: string | undefined;

  constructor(parts: SourceWaitsParts) {
    this.#parts = parts;
  }

  /** `promise`, or MIGRATION_DEADLINE. */
  async inTime<T>(promise: Promise<T>, wait: TimedWait): Promise<T> {
    const { what } = WAITS[wait];
    this.what = what;
    try {
      return await inTime(promise, wait, this.#parts.settings());
    } finally {
      // By then something else may be waited for.
      if (this.what === what) this.what = undefined;
    }
  }

  /** Of pause-before-switchover: until `continue`, or the end of the migration. */
  async pause(): Promise<void> {
    const { signal, move } = this.#parts;
    const released = new Promise<void>((resolve, reject) => {
      this.#continue = resolve;
      signal.addEventListener('abort', () => reject(asError(signal.reason)), { once: true });
    });
    this.what = WAITS.person.what;
    move('pre-switchover');
    try {
      await released;
    } finally {
      this.#continue = undefined;
      this.what = undefined;
    }
  }

  /** Ends `pause`. Throws MIGRATION_STATE. */
  continue(): void {
    if (this.#continue === undefined) {
      const status = this.#parts.status();
      throw wrongState(status, `the migration does not wait for anyone: its state is ${status}`);
    }
    this.#continue();
  }
}
