import { asError } from '../../base/index.ts';
import type { Channel, ChannelCounters, Chunk } from '../channel.ts';
import { type ChannelPosition, closedHere, isTransportError, type TransportError } from '../errors.ts';
import { ReadRing } from '../read-ring.ts';
import { cutOff, sessionFailed } from './errors.ts';
import { SessionFailure, type TlsSession } from './session.ts';

const SLOT_BYTES = 256 * 1024;
const SLOTS = 4;

/** A channel in a TLS session over another one. Hands have been shaken. */
export class TlsChannel implements Channel {
  readonly label: string;
  readonly readable = true;
  readonly writable = true;
  readonly duplex = true;
  readonly closed: Promise<void>;
  readonly #inner: Channel;
  readonly #session: TlsSession;
  readonly #ring = new ReadRing(SLOT_BYTES, SLOTS);
  readonly #counters: ChannelCounters = { bytesRead: 0, bytesWritten: 0, reads: 0, writes: 0 };
  #room: (() => void) | undefined;
  #failure: TransportError | undefined;

  /** Takes both over. `first`: bytes that have been read of the session and shall be read here again. */
  constructor(label: string, inner: Channel, session: TlsSession, first: Buffer) {
    this.label = label;
    this.#inner = inner;
    this.#session = session;
    this.closed = inner.closed;
    this.#ring.onRoom = () => this.#room?.();
    if (first.length > 0) {
      first.copy(this.#ring.space);
      this.#taken(first.length);
    }
    void Promise.all([this.#open(), inner.closed]).then(() => {
      this.#failure ??= closedHere(this.#position());
      session.free();
    });
  }

  get counters(): Readonly<ChannelCounters> {
    return this.#counters;
  }

  read(): Promise<Chunk | null> {
    return this.#ring.read();
  }

  tryRead(): Chunk | null | undefined {
    return this.#ring.tryRead();
  }

  async write(bytes: Uint8Array): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    try {
      this.#session.write(bytes);
      await this.#send();
    } catch (error) {
      throw this.#fail(error);
    }
    this.#counters.bytesWritten += bytes.length;
    this.#counters.writes++;
  }

  async end(): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    this.#session.end();
    await this.#send();
    await this.#inner.end();
  }

  favourLatency(): void {
    this.#inner.favourLatency?.();
  }

  inKernel(): number {
    return this.#inner.inKernel?.() ?? 0;
  }

  destroy(reason?: Error): void {
    this.#failure ??= closedHere(this.#position(), reason);
    this.#ring.abort(this.#failure);
    this.#inner.destroy(reason);
    this.#room?.();
  }

  /** What the session has sealed; in order, as the inner channel takes it. */
  async #send(): Promise<void> {
    const sealed = this.#session.take();
    if (sealed !== undefined) await this.#inner.write(sealed);
  }

  /** Opens what comes, up to the end. Never throws. */
  async #open(): Promise<void> {
    try {
      while (!(await this.#openAll())) {
        const chunk = await this.#inner.read();
        if (chunk === null) throw cutOff(this.#position());
        this.#session.feed(chunk.bytes.subarray(chunk.start, chunk.end));
      }
      this.#ring.finish();
    } catch (error) {
      this.#ring.finish(this.#fail(error));
    }
  }

  /** Opens all that is whole; true: the peer has ended the session. */
  async #openAll(): Promise<boolean> {
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure;
      if (this.#ring.full) {
        await new Promise<void>((resolve) => {
          this.#room = resolve;
        });
        this.#room = undefined;
        continue;
      }
      const { space } = this.#ring;
      let filled = 0;
      let count = 0;
      while (filled < space.length) {
        count = this.#session.read(space.subarray(filled));
        if (count <= 0) break;
        filled += count;
      }
      if (filled > 0) this.#taken(filled);
      if (count > 0) continue;
      // A change of keys is answered; a peer that does not read it is found when we write.
      this.#send().catch(() => {});
      return count === 0;
    }
  }

  #taken(count: number): void {
    this.#counters.bytesRead += count;
    this.#counters.reads++;
    this.#ring.commit(count);
  }

  /** The first cause is what every later call reports. */
  #fail(error: unknown): TransportError {
    if (this.#failure === undefined) {
      this.#failure = this.#errorOf(error);
      // An alert for the peer, if there is one.
      if (error instanceof SessionFailure) this.#send().catch(() => {});
      this.#inner.destroy(this.#failure);
    }
    return this.#failure;
  }

  #errorOf(error: unknown): TransportError {
    if (isTransportError(error)) return error;
    if (error instanceof SessionFailure) return sessionFailed(this.#position(), error.message);
    throw asError(error);
  }

  #position(): ChannelPosition {
    const { bytesRead, bytesWritten } = this.#counters;
    return { channel: this.label, bytesRead, bytesWritten };
  }
}
