import { blockOfKey, pageKey, pageOfKey } from '../../../base/index.ts';
import type { ReturnPathMessage } from '../../../wire/index.ts';
import type { ReceivedPages } from './received-pages.ts';

/**
 * Host pages that were asked for and have not come. Each is asked for once on a connection, however many want it; on a new one all are
 * asked for again, the first with the name of its block (qemu-wire fact 21).
 */
export class PageRequests {
  readonly #received: ReceivedPages;
  readonly #targetPageSize: number;
  readonly #outstanding = new Set<number>();
  readonly #send: (message: ReturnPathMessage) => void;
  #named = -1;
  #total = 0;
  #open = false;

  /** `send` puts a message on the return path; it never throws. */
  constructor(received: ReceivedPages, targetPageSize: number, send: (message: ReturnPathMessage) => void) {
    this.#received = received;
    this.#targetPageSize = targetPageSize;
    this.#send = send;
  }

  /** Pages that were asked for and are not there. */
  get outstanding(): number {
    return this.#outstanding.size;
  }

  /** Requests sent so far, those of earlier connections included. */
  get total(): number {
    return this.#total;
  }

  /** Requests may be sent from now on; those that are outstanding go out. */
  open(): void {
    this.#open = true;
    this.#named = -1;
    for (const key of this.#outstanding) this.#request(blockOfKey(key), pageOfKey(key));
  }

  /** The connection is lost: what is wanted from now on waits for the next one. */
  close(): void {
    this.#open = false;
  }

  /** Somebody wants target page `page`. Asks for its host page, unless it is there or asked for. */
  want(block: number, page: number): void {
    if (this.#received.has(block, page)) return;
    const { hostPages } = this.#received.blocks[block]!;
    const first = page - (page % hostPages);
    const key = pageKey(block, first);
    if (this.#outstanding.has(key)) return;
    this.#outstanding.add(key);
    if (this.#open) this.#request(block, first);
  }

  /** The host page that begins at `page` has come, asked for or not. */
  placed(block: number, page: number): void {
    if (this.#outstanding.size > 0) this.#outstanding.delete(pageKey(block, page));
  }

  #request(block: number, page: number): void {
    const { idstr, hostPages } = this.#received.blocks[block]!;
    const start = page * this.#targetPageSize;
    const length = hostPages * this.#targetPageSize;
    this.#total++;
    this.#send(
      this.#named === block
        ? { type: 'REQ_PAGES', start, length }
        : { type: 'REQ_PAGES_ID', block: idstr, start, length },
    );
    this.#named = block;
  }
}
