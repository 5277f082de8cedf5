/**
 * A connection as a thread uses it that does nothing else: reads and writes wait in the kernel. In clear text it is a descriptor; with TLS a session
 * goes with it, which has shaken hands already.
 */
import { closeSync, writeSync } from 'node:fs';
import { callFailed, type NativeError, tlsFailed } from './errors.ts';
import { addressOf, type IoVector } from './io-vector.ts';
import { libc } from './libc.ts';
import { BIO_CTRL, type OpenSsl, openSsl, SSL_ERROR, sslFailure } from './openssl.ts';
import { TLS_RECORD_BYTES, TlsKeys } from './tls-keys.ts';

/** As it goes from thread to thread. Whoever has it closes it, once. */
export interface Line {
  readonly fd: number;
  /** Address of the TLS session; absent in clear text. */
  readonly session?: number;
}

export interface OpenLine {
  /** Sends at least one byte unless the list is empty; those sent are consumed. Throws NATIVE_CALL, NATIVE_TLS. */
  send(vector: IoVector): number;
  /** Sends what `send` may have kept back. */
  flush(): void;
  /** Fills the list; those received are consumed. 0: the peer has ended. Throws NATIVE_CALL, NATIVE_TLS, NATIVE_TLS_CUT. */
  receive(vector: IoVector): number;
  /** Tells the peer that nothing more comes, so that it knows that nothing was cut off. Never throws: the peer may have gone before. */
  end(): void;
}

/** The descriptor must wait (`setBlocking`). Closing stays the caller's. */
export function openLine({ fd, session }: Line): OpenLine {
  return session === undefined ? new ClearLine(fd) : new TlsLine(fd, session);
}

/** Idempotence is the caller's. */
export function closeLine({ fd, session }: Line): void {
  if (session !== undefined) openSsl().SSL_free(session);
  closeSync(fd);
}

/** Before any thread has it: bytes that the empty connection takes at once. Throws what failed. */
export function sendFirst({ fd, session }: Line, bytes: Uint8Array): void {
  if (session === undefined) {
    writeSync(fd, bytes);
    return;
  }
  const o = openSsl();
  const clear = Buffer.from(new ArrayBuffer(bytes.length));
  clear.set(bytes);
  o.ERR_clear_error();
  if (o.SSL_write(session, addressOf(clear), clear.length) !== clear.length) {
    throw tlsFailed('SSL_write', sslFailure(o));
  }
  const sealed = Buffer.from(new ArrayBuffer(o.BIO_ctrl(o.SSL_get_wbio(session), BIO_CTRL.PENDING, 0, 0)));
  o.BIO_read(o.SSL_get_wbio(session), addressOf(sealed), sealed.length);
  writeSync(fd, sealed);
}

class ClearLine implements OpenLine {
  readonly #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
  }

  send(vector: IoVector): number {
    return vector.send(this.#fd);
  }

  flush(): void {}

  receive(vector: IoVector): number {
    return vector.receive(this.#fd);
  }

  end(): void {}
}

/** Pieces that are shorter than a record are gathered. */
const GATHER_BYTES = 4 * TLS_RECORD_BYTES;
/** Records on their way to the kernel, bytes: one call for many. */
const OUT_BYTES = 256 * 1024;

class TlsLine implements OpenLine {
  readonly #o: OpenSsl = openSsl();
  readonly #session: number;
  readonly #keys: TlsKeys;
  readonly #out: number;
  readonly #fd: number;
  readonly #gathered = Buffer.from(new ArrayBuffer(GATHER_BYTES));
  readonly #gatheredAddress = addressOf(this.#gathered);
  /** What main has read ahead of the handshake is read first; then the connection itself. */
  #readAhead = true;

  constructor(fd: number, session: number) {
    const o = this.#o;
    this.#session = session;
    this.#fd = fd;
    this.#keys = new TlsKeys(session);
    this.#out = o.BIO_new(o.BIO_f_buffer());
    o.BIO_int_ctrl(this.#out, BIO_CTRL.SET_BUFFER_SIZE, OUT_BYTES, 1);
    o.SSL_set0_wbio(session, o.BIO_push(this.#out, o.BIO_new_socket(fd, 0)));
  }

  send(vector: IoVector): number {
    let address = vector.firstAddress;
    let length = vector.firstLength;
    if (length < TLS_RECORD_BYTES) {
      address = this.#gatheredAddress;
      length = vector.gather(this.#gathered);
    } else vector.consume(length);
    this.#keys.use(length);
    const o = this.#o;
    o.ERR_clear_error();
    const sent = o.SSL_write(this.#session, address, length);
    if (sent !== length) throw this.#failed('SSL_write', sent);
    return length;
  }

  flush(): void {
    if (this.#o.BIO_ctrl(this.#out, BIO_CTRL.FLUSH, 0, 0) <= 0) throw callFailed('BIO_flush', libc()!.errno());
  }

  receive(vector: IoVector): number {
    const o = this.#o;
    for (;;) {
      o.ERR_clear_error();
      const count = o.SSL_read(this.#session, vector.firstAddress, vector.firstLength);
      if (count > 0) {
        vector.consume(count);
        return count;
      }
      const error = o.SSL_get_error(this.#session, count);
      if (error === SSL_ERROR.ZERO_RETURN) return 0;
      if (error !== SSL_ERROR.WANT_READ || !this.#readAhead) throw this.#failed('SSL_read', count);
      this.#readAhead = false;
      o.SSL_set0_rbio(this.#session, o.BIO_new_socket(this.#fd, 0));
    }
  }

  #failed(call: string, result: number): NativeError {
    const errno = libc()!.errno();
    const error = this.#o.SSL_get_error(this.#session, result);
    const failure = sslFailure(this.#o);
    return error === SSL_ERROR.SYSCALL && failure.reason === '' ? callFailed(call, errno) : tlsFailed(call, failure);
  }

  end(): void {
    this.#o.ERR_clear_error();
    this.#o.SSL_shutdown(this.#session);
    this.#o.BIO_ctrl(this.#out, BIO_CTRL.FLUSH, 0, 0);
    this.#o.ERR_clear_error();
  }
}
