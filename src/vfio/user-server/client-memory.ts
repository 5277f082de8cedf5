/**
 * The client's memory as the device reaches it: by DMA_READ and DMA_WRITE, in messages as large as the client takes, inside what it has
 * mapped. What was written is logged here, whatever device it is.
 */
import type { vfioUser } from '../../wire/index.ts';
import { ERRNO } from '../errors.ts';
import type { DmaSpace } from '../function.ts';
import { refuse } from '../user-link/errors.ts';
import type { Link } from '../user-link/link.ts';
import type { PageLog } from '../user-link/page-log.ts';
import { type Mapping, Mappings } from './mappings.ts';

export interface ClientMemoryOptions {
  readonly link: Link;
  /** Largest data of one message, bytes. */
  readonly dataBytesMax: number;
  /** Messages under way at a time. */
  readonly atOnce: number;
  /** How long the client may take to answer, ms. */
  readonly timeoutMs: number;
}

export class ClientMemory implements DmaSpace {
  readonly mappings = new Mappings();
  log: PageLog | undefined;
  readonly #options: ClientMemoryOptions;
  readonly #underWay = new Set<Promise<void>>();
  /** Messages that may still go, and who waits for one to be answered first, in their order. */
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(options: ClientMemoryOptions) {
    this.#options = options;
    this.#free = options.atOnce;
  }

  read(iova: number, into: Buffer): Promise<void> {
    return this.#transfer('DMA_READ', iova, into, (address, part) => this.#readPart(address, part));
  }

  write(iova: number, bytes: Buffer): Promise<void> {
    return this.#transfer('DMA_WRITE', iova, bytes, (address, part) => this.#writePart(address, part));
  }

  /** Settles when no transfer that has begun is under way any more. Never rejects. */
  async idle(): Promise<void> {
    await Promise.allSettled(this.#underWay);
  }

  async #transfer(
    command: 'DMA_READ' | 'DMA_WRITE',
    iova: number,
    bytes: Buffer,
    move: (address: number, part: Buffer) => Promise<void>,
  ): Promise<void> {
    if (this.#options.dataBytesMax === 0) throw refuse('the server', command, ERRNO.EINVAL);
    for (let done = 0; done < bytes.length; ) {
      if (this.#free > 0) this.#free--;
      else await new Promise<void>((resolve) => this.#waiting.push(resolve));
      try {
        // Only now: the mapping may have gone while others went first.
        const address = iova + done;
        const { iova: start, length } = this.#mappingAt(command, address);
        const count = Math.min(bytes.length - done, start + length - address, this.#options.dataBytesMax);
        const moving = move(address, bytes.subarray(done, done + count));
        this.#underWay.add(moving);
        await moving.finally(() => this.#underWay.delete(moving));
        done += count;
      } finally {
        this.#next();
      }
    }
  }

  #next(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free++;
    else next();
  }

  #mappingAt(command: 'DMA_READ' | 'DMA_WRITE', address: number): Mapping {
    const mapping = this.mappings.at(address);
    if (mapping === undefined) throw refuse('the server', command, ERRNO.ENOENT);
    if (!(command === 'DMA_READ' ? mapping.readable : mapping.writable)) {
      throw refuse('the server', command, ERRNO.EACCES);
    }
    return mapping;
  }

  #readPart(address: number, part: Buffer): Promise<void> {
    const { link, timeoutMs } = this.#options;
    return link.request('DMA_READ', { address, count: part.length }, timeoutMs, (reply) => {
      this.#checkEcho('DMA_READ', address, part.length, reply.address, reply.data.length);
      reply.data.copy(part);
    });
  }

  /** Logged before the client can have it: a report in between tells it too early, never too late. */
  #writePart(address: number, data: Buffer): Promise<void> {
    const { link, timeoutMs } = this.#options;
    this.log?.mark(address, data.length);
    return link.request('DMA_WRITE', { address, data }, timeoutMs, (reply) => {
      this.#checkEcho('DMA_WRITE', address, data.length, reply.address, reply.count);
      this.log?.mark(address, data.length);
    });
  }

  #checkEcho(
    command: vfioUser.CommandName,
    address: number,
    count: number,
    foundAddress: number,
    foundCount: number,
  ): void {
    if (foundAddress === address && foundCount === count) return;
    throw this.#options.link.badReply(command, `${count} bytes at ${address}`, `${foundCount} at ${foundAddress}`);
  }
}
