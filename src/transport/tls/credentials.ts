import { addressOf, needLibc, openSsl, registerPsk, sslFailure } from '../../native/index.ts';
import { badCredentials } from './errors.ts';
import { pskKeys, pskOf } from './psk-file.ts';
import { TlsSession } from './session.ts';
import { x509Files } from './x509-files.ts';

/** As QEMU's objects tls-creds-x509 and tls-creds-psk are declared. */
export interface CredentialsOptions {
  readonly kind: 'x509' | 'psk';
  readonly endpoint: 'client' | 'server';
  readonly dir: string;
  /** Of x509: the peer must show a certificate of our authority. A client that does not ask takes anybody for its server. */
  readonly verifyPeer: boolean;
  /** Of a psk client: who it is. */
  readonly username: string;
}

export const CREDENTIALS_DEFAULTS = { verifyPeer: true, username: 'qemu' } as const;

const VERIFY = { NONE: 0, PEER: 1, FAIL_IF_NO_PEER_CERT: 2 } as const;
const FILETYPE_PEM = 1;
const CRL_CHECK = 4;
const CTRL = { SESSION_CACHE_MODE: 44, DH_AUTO: 118, MIN_PROTOCOL: 123 } as const;
const TLS_1_2 = 0x303;
/** No tickets: a QEMU source that never reads would answer them with a reset (qemu-wire fact 24). No renegotiation, no compression. */
const OPTIONS = 2 ** 14 + 2 ** 30 + 2 ** 17;
/** AES is the fastest wherever processors know it; the second is for keys that are shared, which SHA-384 does not take here. */
const CIPHERS_1_3 = 'TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256';
const CIPHERS_1_2 = { x509: 'ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM', psk: 'kECDHEPSK:kDHEPSK:kPSK:!NULL' } as const;

/** Who this side is, and whom it takes for its peer: loaded once, for any number of sessions. */
export class TlsCredentials {
  readonly kind: 'x509' | 'psk';
  readonly endpoint: 'client' | 'server';
  /** A client asks for the name in the server's certificate. */
  readonly wantsHost: boolean;
  readonly #context: number;

  /** Throws TRANSPORT_TLS_CREDENTIALS, NATIVE_UNAVAILABLE. */
  constructor(options: CredentialsOptions) {
    const { kind, endpoint, verifyPeer } = options;
    this.kind = kind;
    this.endpoint = endpoint;
    this.wantsHost = kind === 'x509' && endpoint === 'client' && verifyPeer;
    const o = openSsl();
    const context = o.SSL_CTX_new(o.TLS_method());
    this.#context = context;
    o.SSL_CTX_ctrl(context, CTRL.MIN_PROTOCOL, TLS_1_2, 0);
    o.SSL_CTX_ctrl(context, CTRL.SESSION_CACHE_MODE, 0, 0);
    o.SSL_CTX_ctrl(context, CTRL.DH_AUTO, 1, 0);
    o.SSL_CTX_set_options(context, OPTIONS);
    o.SSL_CTX_set_num_tickets(context, 0);
    o.SSL_CTX_set_ciphersuites(context, CIPHERS_1_3);
    o.SSL_CTX_set_cipher_list(context, CIPHERS_1_2[kind]);
    // Of a client with a shared key too: a server that shows a certificate instead is none of ours.
    const asks = kind === 'x509' ? verifyPeer : endpoint === 'client';
    o.SSL_CTX_set_verify(context, asks ? VERIFY.PEER | VERIFY.FAIL_IF_NO_PEER_CERT : VERIFY.NONE, 0);
    try {
      if (kind === 'x509') useCertificates(context, options);
      else useKeys(context, options);
    } catch (error) {
      free(context);
      throw error;
    }
    contexts.register(this, context);
  }

  /** `host`: what the server's certificate must carry, where `wantsHost`; `recordsPerKey`: for tests. Throws SessionFailure. */
  session(host: string | undefined, recordsPerKey?: number): TlsSession {
    return new TlsSession(this.#context, this.endpoint, this.wantsHost ? host : undefined, recordsPerKey);
  }
}

function useCertificates(context: number, { dir, endpoint, verifyPeer }: CredentialsOptions): void {
  const { ca, crl, own } = x509Files(dir, endpoint);
  const o = openSsl();
  const check = (file: string, result: number) => {
    if (result !== 1) throw badCredentials(dir, file, `is refused: ${sslFailure(o).reason}`);
  };
  o.ERR_clear_error();
  check('ca-cert.pem', o.SSL_CTX_load_verify_file(context, ca));
  if (crl !== undefined && verifyPeer) {
    const store = o.SSL_CTX_get_cert_store(context);
    check('ca-crl.pem', o.X509_STORE_load_file(store, crl));
    o.X509_STORE_set_flags(store, CRL_CHECK);
  }
  if (own === undefined) return;
  check(`${endpoint}-cert.pem`, o.SSL_CTX_use_certificate_chain_file(context, own.certificate));
  check(`${endpoint}-key.pem`, o.SSL_CTX_use_PrivateKey_file(context, own.key, FILETYPE_PEM));
}

function useKeys(context: number, { dir, endpoint, username }: CredentialsOptions): void {
  const keys = pskKeys(dir);
  const o = openSsl();
  if (endpoint === 'client') {
    keysOf.set(context, new Map([[username, pskOf(dir, keys, username)]]));
    o.SSL_CTX_set_psk_client_callback(context, pskCallbacks().client);
  } else {
    keysOf.set(context, keys);
    o.SSL_CTX_set_psk_server_callback(context, pskCallbacks().server);
  }
}

/** Sessions hold the context too, and outlive an object that was deleted meanwhile. */
const contexts = new FinalizationRegistry(free);

function free(context: number): void {
  keysOf.delete(context);
  openSsl().SSL_CTX_free(context);
}

/** By context: OpenSSL asks during a handshake. Of a client there is one. */
const keysOf = new Map<number, ReadonlyMap<string, Buffer>>();

let callbacks: { readonly client: number; readonly server: number } | undefined;

function pskCallbacks() {
  const o = openSsl();
  const libc = needLibc('TLS');
  /** Bytes into memory of OpenSSL's; 0 if they do not fit. */
  const give = (bytes: Buffer, to: number, max: number): number => {
    if (bytes.length > max) return 0;
    const held = Buffer.from(new ArrayBuffer(bytes.length));
    bytes.copy(held);
    libc.memcpy(to, addressOf(held), held.length);
    held.fill(0);
    return bytes.length;
  };
  callbacks ??= {
    client: registerPsk('client', (ssl, _hint, identity, identityBytesMax, key, keyBytesMax) => {
      const [entry] = keysOf.get(o.SSL_get_SSL_CTX(ssl)) ?? [];
      if (entry === undefined || give(Buffer.from(`${entry[0]}\0`), identity, identityBytesMax) === 0) return 0;
      return give(entry[1], key, keyBytesMax);
    }),
    server: registerPsk('server', (ssl, user, key, keyBytesMax) => {
      const found = keysOf.get(o.SSL_get_SSL_CTX(ssl))?.get(user);
      return found === undefined ? 0 : give(found, key, keyBytesMax);
    }),
  };
  return callbacks;
}
