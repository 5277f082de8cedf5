import { nowMs } from '../base/index.ts';
import { type SettingsView, type TimedWait, WAITS, waitDeclaration } from '../settings/index.ts';
import { overdue } from './deadline.ts';

/** How often it looks at most, ms. */
const LOOK_MS = 1_000;

/** What stands still if a peer does nothing. */
export interface Watched {
  /** Whether it is the peer that something waits for now. */
  readonly waitsForPeer: boolean;
  /** Grows with whatever the peer does. */
  readonly moved: number;
}

/** Looks whether a peer that is connected still does its part: a connection alone never tells. It is its owner who ends it. */
export class StallWatch {
  readonly #wait: TimedWait;
  readonly #settings: SettingsView;
  readonly #watched: Watched;
  readonly #stalled: (error: Error) => void;
  #timer: NodeJS.Timeout | undefined;
  #ended = false;
  #moved = -1;
  #sinceMs = nowMs();
  /** Nothing had moved between the last two looks. */
  #still = false;

  /** `stalled` is called with MIGRATION_DEADLINE each time that the declared time has passed; 0 is no limit. */
  constructor(wait: TimedWait, settings: SettingsView, watched: Watched, stalled: (error: Error) => void) {
    this.#wait = wait;
    this.#settings = settings;
    this.#watched = watched;
    this.#stalled = stalled;
    this.#next();
  }

  /** For query-migrate, while the peer does nothing. */
  get waitingFor(): string | undefined {
    return this.#still && this.#watched.waitsForPeer ? WAITS[this.#wait].what : undefined;
  }

  end(): void {
    this.#ended = true;
    clearTimeout(this.#timer);
  }

  #next(): void {
    const limitMs = this.#limitMs;
    const ms = limitMs === 0 ? LOOK_MS : Math.min(LOOK_MS, Math.ceil(limitMs / 4));
    if (!this.#ended) this.#timer = setTimeout(() => this.#look(), ms);
  }

  #look(): void {
    const { waitsForPeer, moved } = this.#watched;
    const now = nowMs();
    const limitMs = this.#limitMs;
    this.#still = waitsForPeer && moved === this.#moved;
    if (!this.#still) {
      this.#moved = moved;
      this.#sinceMs = now;
    } else if (limitMs > 0 && now - this.#sinceMs >= limitMs) {
      this.#sinceMs = now;
      const { what, hint } = waitDeclaration(this.#wait);
      this.#stalled(overdue(what, limitMs, hint));
    }
    this.#next();
  }

  get #limitMs(): number {
    return this.#settings.parameter(WAITS[this.#wait].deadline);
  }
}
