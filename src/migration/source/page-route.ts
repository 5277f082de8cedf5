import type { PageWindow } from '../../machine/index.ts';
import type { DirtyPages } from './dirty-pages.ts';

/**
 * What is known of pages before they are sent: `zero` all of them without a look, `unread` nothing (the route does not read them here), or
 * here they are.
 */
export type PageContent = PageWindow | 'zero' | 'unread';

/** The way that pages go: records on the main channel (MainPages), packets on parallel ones (MultifdPages). */
export interface PageRoute {
  /** Whether it wants to see the pages here. */
  readonly readsPages: boolean;
  /**
   * The hot loop: sends dirty pages of the current block from the current page on until page `end` (true), or until it can take no more
   * now (false; `room` waits). Clears their bits and moves on in `dirty`.
   */
  fill(dirty: DirtyPages, content: PageContent, end: number): boolean;
  /** When it may go on; undefined: at once. Throws what has ended the way. */
  room(): Promise<void> | undefined;
  /** Nothing that it was given can be overtaken by what it is given from now on. */
  readonly settled: boolean;
  /** Bytes per second; 0 = unlimited. May change at any time. */
  rateLimit: number;
  /** Differences to what was sent before may be sent, where the route knows them: not in the first round, nor with the guest stopped. */
  allowXbzrle?(allowed: boolean): void;
}
