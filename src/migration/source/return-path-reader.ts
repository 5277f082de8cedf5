import { asError, unreachable } from '../../base/index.ts';
import type { LoadCost } from '../../machine/index.ts';
import type { Channel } from '../../transport/index.ts';
import { ReturnPathDecoder, type ReturnPathMessage, StreamInput } from '../../wire/index.ts';
import { MigrationError } from '../errors.ts';
import { loadCostPart, PING_ARRIVED, PONG_VMFERRY } from '../return-path.ts';

/** What a destination says beside the rest once it listens (postcopy). What is thrown ends the return path. */
export interface PostcopyMessages {
  /** It wants pages; `block` undefined: of the block named last. Bytes. */
  pages(block: string | undefined, start: number, length: number): void;
  /** Recovery: what it has of a block. The bitmap is valid during the call. */
  bitmap(block: string, bitmap: Buffer): void;
  /** Recovery: it goes on. */
  resumed(): void;
}

/**
 * Reads what the destination says to the source. One loop for the life of the channel; others wait for what they need by
 * `pong` and `shut`. Everything that breaks the rules, and the end of the bytes, ends in `failed`.
 */
export class ReturnPathReader {
  readonly #channel: Channel;
  readonly #pongs = new Map<number, () => void>();
  readonly #ended: Promise<never>;
  #reject: (error: Error) => void = () => {};
  readonly #shut: Promise<void>;
  #resolveShut: () => void = () => {};
  readonly #onError: (error: Error) => void;
  readonly #anyPong: Promise<void>;
  #resolveAnyPong: () => void = () => {};
  #vmferry = false;
  #met = false;
  #loadCost: LoadCost | undefined;
  #shutSeen = false;
  #shutExpected = false;
  /** A device of the destination is ready for the switchover. What it throws ends the return path. */
  switchoverAcked: () => void = () => {};
  /** PING_ARRIVED is answered. */
  arrived: () => void = () => {};
  /** Undefined: the destination may not say such things yet. */
  postcopy: PostcopyMessages | undefined;

  /** `onError`: called once when the path breaks before SHUT; the conductor then stops writing at once. */
  constructor(channel: Channel, onError: (error: Error) => void) {
    this.#channel = channel;
    this.#onError = onError;
    this.#ended = new Promise((_, reject) => {
      this.#reject = reject;
    });
    this.#ended.catch(() => {});
    this.#anyPong = new Promise((resolve) => {
      this.#resolveAnyPong = resolve;
    });
    this.#shut = new Promise((resolve) => {
      this.#resolveShut = resolve;
    });
    void this.#run();
  }

  /** Rejects when the path ends, in whatever way. Never resolves. */
  get ended(): Promise<never> {
    return this.#ended;
  }

  /** Who the destination is; undefined until it has answered a PING. What it says of itself comes before. */
  get peer(): 'vmferry' | 'other' | undefined {
    if (!this.#met) return undefined;
    return this.#vmferry ? 'vmferry' : 'other';
  }

  /** As a vmferry destination has last told. */
  get loadCost(): LoadCost | undefined {
    return this.#loadCost;
  }

  /** Resolves when any PONG has come: the destination has taken this channel for the main one, and reads it. */
  answered(): Promise<void> {
    return Promise.race([this.#anyPong, this.#ended]);
  }

  /** Resolves when PONG `value` has come; rejects when the path ends first. */
  pong(value: number): Promise<void> {
    const seen = new Promise<void>((resolve) => this.#pongs.set(value, resolve));
    return Promise.race([seen, this.#ended]);
  }

  /** Resolves with SHUT 0, which is legal from this call on; rejects when the path ends in any other way. */
  shut(): Promise<void> {
    this.#shutExpected = true;
    return Promise.race([this.#shut, this.#ended]);
  }

  async #run(): Promise<void> {
    const input = new StreamInput(`${this.#channel.label} (return path)`);
    const decoder = new ReturnPathDecoder(input.reader);
    try {
      for (;;) {
        const message = decoder.next();
        if (message !== undefined) {
          this.#take(message);
          continue;
        }
        input.release();
        const chunk = this.#channel.tryRead() ?? (await this.#channel.read());
        if (chunk === null) {
          throw new MigrationError(
            { code: 'MIGRATION_PEER_GONE', phase: 'return path' },
            `${this.#channel.label}: the destination closed the connection when ${this.#channel.counters.bytesWritten} bytes had been sent ` +
              `and ${input.reader.offset} bytes of return path had come`,
          );
        }
        input.add(chunk);
      }
    } catch (error) {
      this.#reject(asError(error));
      if (!this.#shutSeen) this.#onError(asError(error));
    }
  }

  #take(message: ReturnPathMessage): void {
    switch (message.type) {
      case 'PONG':
        this.#takePong(message.value);
        return;
      case 'SHUT':
        this.#takeShut(message.value);
        return;
      case 'SWITCHOVER_ACK':
        this.switchoverAcked();
        return;
      case 'REQ_PAGES':
        this.#postcopy(message.type).pages(undefined, message.start, message.length);
        return;
      case 'REQ_PAGES_ID':
        this.#postcopy(message.type).pages(message.block, message.start, message.length);
        return;
      case 'RECV_BITMAP':
        this.#postcopy(message.type).bitmap(message.block, message.bitmap);
        return;
      case 'RESUME_ACK':
        this.#postcopy(message.type).resumed();
        return;
      default:
        unreachable(message);
    }
  }

  #takePong(value: number): void {
    if (value === PONG_VMFERRY) {
      this.#vmferry = true;
      return;
    }
    const told = this.#vmferry ? loadCostPart(value) : undefined;
    if (told !== undefined) {
      this.#loadCost = { ms: 0, bytesPerMs: Number.POSITIVE_INFINITY, ...this.#loadCost, ...told };
      return;
    }
    this.#met = true;
    if (value === PING_ARRIVED) this.arrived();
    this.#resolveAnyPong();
    this.#pongs.get(value)?.();
  }

  #postcopy(what: ReturnPathMessage['type']): PostcopyMessages {
    if (this.postcopy !== undefined) return this.postcopy;
    throw new MigrationError(
      { code: 'MIGRATION_UNSUPPORTED', feature: what },
      `${this.#channel.label}: ${what} on the return path, but postcopy is not on`,
    );
  }

  #takeShut(value: number): void {
    if (value === 0 && this.#shutExpected) {
      this.#shutSeen = true;
      this.#resolveShut();
      return;
    }
    const sent = this.#channel.counters.bytesWritten;
    // SHUT 0 before everything is sent would confirm a guest that cannot be there yet (qemu-wire fact 7).
    throw new MigrationError(
      { code: 'MIGRATION_PEER_FAILED', value },
      value === 0
        ? `${this.#channel.label}: the destination says that it is done (SHUT 0) before everything was sent`
        : `${this.#channel.label}: the destination reports that the migration failed there (SHUT ${value}) when ${sent} bytes had been sent here`,
    );
  }
}
