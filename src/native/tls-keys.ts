import { type OpenSsl, openSsl } from './openssl.ts';

/** Bytes that a record holds at most (RFC 8446, 5.1). */
export const TLS_RECORD_BYTES = 16 * 1024;
/**
 * AES-GCM may protect 2^24.5 records with one key (RFC 8446, 5.5), 380 GB: a large guest needs more than one. GnuTLS, and so QEMU, breaks the session off
 * at more than 8 changes a second: seen with a change every 64 records; every 1200 went well with 7.2, 10.0 and 11.1.
 */
const RECORDS_PER_KEY = 2 ** 23;
const UPDATE_NOT_REQUESTED = 0;

/** Changes the key of what a session sends before it has protected too much. TLS 1.2 counts to 2^64 and needs no change. */
export class TlsKeys {
  readonly #o: OpenSsl = openSsl();
  readonly #session: number;
  readonly #recordsPerKey: number;
  #records = 0;

  constructor(session: number, recordsPerKey = RECORDS_PER_KEY) {
    this.#session = session;
    this.#recordsPerKey = recordsPerKey;
  }

  /** `bytes` are about to be sent by one call. */
  use(bytes: number): void {
    this.#records += Math.ceil(bytes / TLS_RECORD_BYTES);
    if (this.#records < this.#recordsPerKey) return;
    this.#records = 0;
    // TLS 1.2 refuses.
    this.#o.SSL_key_update(this.#session, UPDATE_NOT_REQUESTED);
    this.#o.ERR_clear_error();
  }
}
