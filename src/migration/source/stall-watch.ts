import { nowMs } from '../../base/index.ts';
import { type SettingsView, WAITS } from '../../settings/index.ts';
import { overdue } from '../deadline.ts';
import type { Links } from './links.ts';

/** How often it looks at most, ms. */
const LOOK_MS = 1_000;

/** Looks whether a destination that is connected still takes what it is sent: a connection alone never tells that nobody reads any more. */
export class StallWatch {
  readonly #settings: SettingsView;
  readonly #links: Links;
  readonly #stalled: (error: Error) => void;
  #timer: NodeJS.Timeout | undefined;
  #taken = -1;
  #sinceMs = nowMs();

  /** Ends with the links. `stalled` is called with MIGRATION_DEADLINE each time that the declared time has passed. */
  constructor(settings: SettingsView, links: Links, stalled: (error: Error) => void) {
    this.#settings = settings;
    this.#links = links;
    this.#stalled = stalled;
    this.#next();
    void links.main.closed.then(() => clearTimeout(this.#timer));
  }

  /** For query-migrate, while the destination takes nothing. */
  get waitingFor(): string | undefined {
    return nowMs() - this.#sinceMs >= LOOK_MS ? WAITS.room.what : undefined;
  }

  #next(): void {
    const limitMs = this.#limitMs;
    this.#timer = setTimeout(() => this.#look(), limitMs === 0 ? LOOK_MS : Math.min(LOOK_MS, Math.ceil(limitMs / 4)));
    // Who watches holds no process: the links do.
    this.#timer.unref();
  }

  #look(): void {
    const { waitsForPeer, taken } = this.#links;
    const now = nowMs();
    const limitMs = this.#limitMs;
    if (!waitsForPeer || taken !== this.#taken) {
      this.#taken = taken;
      this.#sinceMs = now;
    } else if (limitMs > 0 && now - this.#sinceMs >= limitMs) {
      this.#sinceMs = now;
      this.#stalled(overdue(WAITS.room.what, limitMs, WAITS.room.hint));
    }
    this.#next();
  }

  get #limitMs(): number {
    return this.#settings.parameter(WAITS.room.deadline);
  }
}
