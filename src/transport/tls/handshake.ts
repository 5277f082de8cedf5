import type { Line } from '../../native/index.ts';
import type { Address, Channel } from '../channel.ts';
import { type Connection, FIRST_BYTES_MAX } from '../connection.ts';
import { badAddress, closedHere, isTransportError } from '../errors.ts';
import { SocketChannel } from '../socket-channel.ts';
import type { TlsCredentials } from './credentials.ts';
import { notTrusted } from './errors.ts';
import { SessionFailure, type TlsSession } from './session.ts';
import { TlsChannel } from './tls-channel.ts';

/** What a session is made on. */
export interface TlsTerms {
  readonly credentials: TlsCredentials;
  /** Client: the name that the server's certificate must carry; undefined: the host of the address. */
  readonly hostname?: string | undefined;
  /** Server: the only one who may come, as RFC 2253 writes the name in a client's certificate (CN=client,O=Org). */
  readonly identity?: string | undefined;
}

/** For all of a handshake, ms. */
const HANDSHAKE_MS = 10_000;

interface Waiting {
  readonly signal?: AbortSignal | undefined;
  readonly timeoutMs?: number | undefined;
}

/**
 * Shakes hands over a connection that nobody has used. Returns when both sides are who they should be as far as this side can know: a client of TLS 1.3
 * hears only when it reads that the server refuses it. Throws TRANSPORT_TLS_HANDSHAKE, TRANSPORT_TIMEOUT, TRANSPORT_CLOSED if `signal` aborts; then
 * the connection is destroyed.
 */
export async function secure(inner: Channel, terms: TlsTerms, waiting: Waiting, to?: Address): Promise<TlsConnection> {
  const { signal, timeoutMs = HANDSHAKE_MS } = waiting;
  const { label } = inner;
  let session: TlsSession | undefined;
  let gaveUp: Error | undefined;
  const giveUp = (reason: Error) => {
    gaveUp ??= reason;
    inner.destroy(reason);
  };
  const onAbort = () => giveUp(closedHere({ channel: label, ...inner.counters }, signal?.reason));
  const onTimeout = () => giveUp(notTrusted(label, `the peer has not shaken hands within ${timeoutMs} ms`));
  signal?.addEventListener('abort', onAbort, { once: true });
  const timer = setTimeout(onTimeout, timeoutMs);
  try {
    if (signal?.aborted) onAbort();
    session = newSession(label, terms, to);
    await shakeHands(inner, session);
    expectIdentity(label, session, terms);
    return new TlsConnection(inner, session);
  } catch (thrown) {
    const error = gaveUp ?? handshakeError(label, thrown);
    inner.destroy(error);
    session?.free();
    throw error;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', onAbort);
  }
}

function newSession(label: string, { credentials, hostname }: TlsTerms, to: Address | undefined): TlsSession {
  const host = hostname ?? (to?.kind === 'tcp' ? to.host : undefined);
  // Words of QEMU's.
  if (credentials.wantsHost && (host === undefined || host === ''))
    throw notTrusted(label, 'No hostname available for TLS: tls-hostname says which name the certificate must carry');
  return credentials.session(host);
}

async function shakeHands(inner: Channel, session: TlsSession): Promise<void> {
  for (;;) {
    let failure: unknown;
    let done = false;
    try {
      done = session.handshake();
    } catch (thrown) {
      failure = thrown;
    }
    // An alert too: the peer shall know why.
    const sealed = session.take();
    if (sealed !== undefined) await inner.write(sealed);
    if (failure !== undefined) throw failure;
    if (done) return;
    const chunk = await inner.read();
    if (chunk === null)
      throw new SessionFailure('the peer has ended the connection: it may not take us for who we are');
    session.feed(chunk.bytes.subarray(chunk.start, chunk.end));
  }
}

function expectIdentity(label: string, session: TlsSession, { identity }: TlsTerms): void {
  if (identity === undefined) return;
  const name = session.peerName();
  // Words of QEMU's.
  if (name !== identity) throw notTrusted(label, `TLS x509 authz check for ${name ?? 'a peer without name'} is denied`);
}

function handshakeError(label: string, thrown: unknown): Error {
  if (thrown instanceof SessionFailure) return notTrusted(label, thrown.message);
  if (isTransportError(thrown) && thrown.code !== 'TRANSPORT_RESET') return thrown;
  return notTrusted(label, 'the peer has broken off the handshake', thrown);
}

/** A connection in a session whose hands are shaken. */
export class TlsConnection implements Connection {
  readonly address: string;
  readonly #inner: Channel;
  readonly #session: TlsSession;
  #first = Buffer.alloc(0);

  /** Takes both over. */
  constructor(inner: Channel, session: TlsSession) {
    this.address = inner.label.slice(inner.label.indexOf(' ') + 1);
    this.#inner = inner;
    this.#session = session;
  }

  async firstBytes(enough: (bytes: Buffer) => boolean): Promise<Buffer> {
    const bytes = Buffer.from(new ArrayBuffer(FIRST_BYTES_MAX));
    let filled = 0;
    try {
      while (filled < bytes.length && !(filled > 0 && enough(bytes.subarray(0, filled)))) {
        const count = this.#session.read(bytes.subarray(filled));
        if (count === 0) break;
        if (count > 0) {
          filled += count;
          continue;
        }
        const chunk = await this.#inner.read();
        if (chunk === null) break;
        this.#session.feed(chunk.bytes.subarray(chunk.start, chunk.end));
      }
    } catch {
      // Whoever uses the connection finds out why it has ended.
    }
    this.#first = bytes.subarray(0, filled);
    return this.#first;
  }

  channel(role = 'main'): TlsChannel {
    return new TlsChannel(`${role} ${this.address}`, this.#inner, this.#session, this.#first);
  }

  line(): Line {
    const inner = this.#inner;
    if (!(inner instanceof SocketChannel)) throw badAddress(this.address, 'is not a socket');
    const fd = inner.takeDescriptor((rest) => this.#session.feed(rest));
    return { fd, session: this.#session.release() };
  }

  destroy(): void {
    this.#inner.destroy();
    this.#session.free();
  }
}
