import { asError, explain, WakeUp } from '../../base/index.ts';
import { formatAddress } from '../address.ts';
import type { Address, Channel, Listener } from '../channel.ts';
import type { Connection } from '../connection.ts';
import { badAddress, closedHere } from '../errors.ts';
import { secure, type TlsConnection, type TlsTerms } from './handshake.ts';

/** Peers whose hands are being shaken: none holds up another, and more must wait. */
const AT_ONCE_MAX = 64;

export interface TlsListenerOptions {
  readonly tls: TlsTerms;
  readonly role?: string | undefined;
  /** For all of a handshake, ms. */
  readonly timeoutMs?: number | undefined;
}

/** Gives only peers that have come to a session, to one who asks at a time; whoever does not is turned away, and the next may come. */
export class TlsListener implements Listener {
  readonly address: Address;
  readonly #inner: Listener;
  readonly #terms: TlsTerms;
  readonly #role: string | undefined;
  readonly #timeoutMs: number | undefined;
  readonly #ready: TlsConnection[] = [];
  /** For who takes: a peer is ready, a handshake is over, or nobody can come any more. */
  readonly #news = new WakeUp();
  /** For who lets peers in: a handshake is over. */
  readonly #room = new WakeUp();
  readonly #stop = new AbortController();
  #refused = 0;
  #lastRefusal = '';
  #shaking = 0;
  #running = false;
  #over: Error | undefined;
  /** Where nobody else can come: why the one who came was refused. */
  #onlyRefusal: Error | undefined;

  /** Takes `inner` over. */
  constructor(inner: Listener, { tls, role, timeoutMs }: TlsListenerOptions) {
    this.address = inner.address;
    this.#inner = inner;
    this.#terms = tls;
    this.#role = role;
    this.#timeoutMs = timeoutMs;
  }

  get refusals(): { readonly count: number; readonly last: string } {
    return { count: this.#refused, last: this.#lastRefusal };
  }

  async accept(signal?: AbortSignal): Promise<Channel> {
    return (await this.#take(signal)).channel(this.#role);
  }

  async next(signal?: AbortSignal): Promise<Connection> {
    if (!this.#isSocket) throw badAddress(formatAddress(this.address), 'has one peer only');
    return this.#take(signal);
  }

  close(): void {
    this.#over ??= this.#closedError();
    this.#stop.abort(this.#over);
    this.#inner.close();
    for (const connection of this.#ready.splice(0)) connection.destroy();
    this.#news.wake();
  }

  async #take(signal: AbortSignal | undefined): Promise<TlsConnection> {
    void this.#run();
    const onAbort = () => this.#news.wake();
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      for (;;) {
        if (signal?.aborted) throw this.#closedError(signal.reason);
        const connection = this.#ready.shift();
        if (connection !== undefined) return connection;
        if (this.#over !== undefined && this.#shaking === 0) throw this.#onlyRefusal ?? this.#over;
        await this.#news.next();
      }
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  /** Takes who comes, from the first one that is wanted to the end of the listener. */
  async #run(): Promise<void> {
    if (this.#running) return;
    this.#running = true;
    try {
      for (;;) {
        while (this.#shaking >= AT_ONCE_MAX) await this.#room.next();
        const { signal } = this.#stop;
        const channel = this.#isSocket
          ? (await this.#inner.next(signal)).channel(this.#role)
          : await this.#inner.accept(signal);
        void this.#secure(channel);
      }
    } catch (error) {
      this.#over ??= asError(error);
      this.#news.wake();
    }
  }

  async #secure(channel: Channel): Promise<void> {
    this.#shaking++;
    try {
      const waiting = { signal: this.#stop.signal, timeoutMs: this.#timeoutMs };
      const connection = await secure(channel, this.#terms, waiting);
      if (this.#stop.signal.aborted) connection.destroy();
      else this.#ready.push(connection);
    } catch (error) {
      this.#refused++;
      this.#lastRefusal = explain(error);
      if (!this.#isSocket) this.#onlyRefusal = asError(error);
    } finally {
      this.#shaking--;
      this.#news.wake();
      this.#room.wake();
    }
  }

  get #isSocket(): boolean {
    return this.address.kind === 'tcp' || this.address.kind === 'unix';
  }

  #closedError(reason?: unknown): Error {
    return closedHere({ channel: formatAddress(this.address), bytesRead: 0, bytesWritten: 0 }, reason);
  }
}
