/**
 * A TLS session without a connection: sealed bytes in, sealed bytes out, between which the event loop carries them. Once hands are shaken it may be
 * given to a thread, which reads and writes the connection itself (native/line).
 */
import { assert } from '../../base/index.ts';
import { addressOf, BIO_CTRL, type OpenSsl, openSsl, SSL_ERROR, sslFailure, TlsKeys } from '../../native/index.ts';

/** What a session's failure is, before it is known on which channel. `cut` cannot be: that is for the reader of the connection to see. */
export class SessionFailure extends Error {}

/** XN_FLAG_RFC2253: the form in which GnuTLS, and so `tls-authz`, names people: CN=client,O=Org. */
const RFC2253 = 0x111_0317;
const X509_V_OK = 0;

const IP = /^(\d{1,3}(\.\d{1,3}){3}|[0-9a-f:]*:[0-9a-f:.]*)$/i;

export class TlsSession {
  readonly #o: OpenSsl = openSsl();
  readonly #ssl: number;
  readonly #in: number;
  readonly #out: number;
  readonly #keys: TlsKeys;
  /** Given away or freed. */
  #gone = false;

  /** `host`: of a client, the name or address that the server's certificate must carry; undefined: the key says who it is (PSK). */
  constructor(context: number, endpoint: 'client' | 'server', host?: string, recordsPerKey?: number) {
    const o = this.#o;
    this.#ssl = o.SSL_new(context);
    this.#in = o.BIO_new(o.BIO_s_mem());
    this.#out = o.BIO_new(o.BIO_s_mem());
    o.SSL_set_bio(this.#ssl, this.#in, this.#out);
    this.#keys = new TlsKeys(this.#ssl, recordsPerKey);
    if (endpoint === 'server') o.SSL_set_accept_state(this.#ssl);
    else o.SSL_set_connect_state(this.#ssl);
    if (host === undefined) return;
    // OpenSSL would read such a name up to its first NUL.
    const done = host.includes('\0')
      ? 0
      : IP.test(host)
        ? o.X509_VERIFY_PARAM_set1_ip_asc(o.SSL_get0_param(this.#ssl), host)
        : o.SSL_set1_host(this.#ssl, host);
    // Without it any name would do.
    if (done !== 1) {
      this.free();
      throw new SessionFailure(`'${host}' is no name that a certificate can carry`);
    }
  }

  /** Goes on with the handshake; true when it is done. Throws SessionFailure; then an alert for the peer may wait in `take`. */
  handshake(): boolean {
    const o = this.#living();
    o.ERR_clear_error();
    const result = o.SSL_do_handshake(this.#ssl);
    if (result === 1) return true;
    if (o.SSL_get_error(this.#ssl, result) === SSL_ERROR.WANT_READ) return false;
    throw new SessionFailure(this.#whyNot());
  }

  /** Sealed bytes that have come. */
  feed(bytes: Uint8Array): void {
    const o = this.#living();
    if (bytes.length > 0) o.BIO_write(this.#in, addressOf(bytes), bytes.length);
  }

  /** Opens what has come, into `into`: how many bytes; 0: the peer has ended the session; -1: nothing is whole yet. Throws SessionFailure. */
  read(into: Uint8Array): number {
    const o = this.#living();
    o.ERR_clear_error();
    const count = o.SSL_read(this.#ssl, addressOf(into), into.length);
    if (count > 0) return count;
    const error = o.SSL_get_error(this.#ssl, count);
    if (error === SSL_ERROR.ZERO_RETURN) return 0;
    if (error === SSL_ERROR.WANT_READ) return -1;
    throw new SessionFailure(this.#whyNot());
  }

  /** Seals all of `bytes`, for `take`. Throws SessionFailure. */
  write(bytes: Uint8Array): void {
    const o = this.#living();
    if (bytes.length === 0) return;
    this.#keys.use(bytes.length);
    o.ERR_clear_error();
    if (o.SSL_write(this.#ssl, addressOf(bytes), bytes.length) !== bytes.length)
      throw new SessionFailure(this.#whyNot());
  }

  /** Tells the peer that nothing more comes, by what `take` gives then. */
  end(): void {
    const o = this.#living();
    o.ERR_clear_error();
    o.SSL_shutdown(this.#ssl);
    o.ERR_clear_error();
  }

  /** Sealed bytes that are to be sent; undefined if there are none. */
  take(): Buffer | undefined {
    const o = this.#living();
    const length = o.BIO_ctrl(this.#out, BIO_CTRL.PENDING, 0, 0);
    if (length === 0) return undefined;
    const bytes = Buffer.allocUnsafeSlow(length);
    o.BIO_read(this.#out, addressOf(bytes), length);
    return bytes;
  }

  /** Who the peer is by its certificate, as RFC 2253 writes names; undefined if it has shown none. */
  peerName(): string | undefined {
    const o = this.#living();
    const certificate = o.SSL_get1_peer_certificate(this.#ssl);
    if (certificate === 0) return undefined;
    const text = o.BIO_new(o.BIO_s_mem());
    o.X509_NAME_print_ex(text, o.X509_get_subject_name(certificate), 0, RFC2253);
    const bytes = Buffer.from(new ArrayBuffer(o.BIO_ctrl(text, BIO_CTRL.PENDING, 0, 0)));
    if (bytes.length > 0) o.BIO_read(text, addressOf(bytes), bytes.length);
    o.BIO_free_all(text);
    o.X509_free(certificate);
    return bytes.toString();
  }

  /** The session's address, for native's Line. It is no longer this object's. */
  release(): number {
    assert(!this.#gone, 'a session is given away once');
    this.#gone = true;
    return this.#ssl;
  }

  /** Idempotent; nothing of it may be used afterwards. */
  free(): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#o.SSL_free(this.#ssl);
  }

  /** Memory that is no longer ours must not be touched, however an end and a byte cross each other. */
  #living(): OpenSsl {
    if (this.#gone) throw new SessionFailure('the session is over');
    return this.#o;
  }

  /** The reason of the last failure; about a certificate, what is wrong with it. */
  #whyNot(): string {
    const o = this.#o;
    const { reason } = sslFailure(o);
    const verified = o.SSL_get_verify_result(this.#ssl);
    return verified === X509_V_OK ? reason : `${reason}: ${o.X509_verify_cert_error_string(verified)}`;
  }
}
