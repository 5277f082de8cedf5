/**
 * TLS by FFI, from the OpenSSL that is in Node.js itself: its addon documentation names OpenSSL among the symbols that it exports on purpose.
 * node:tls has the same code, but there a session stays on one event loop for good. Here a session is an address: a thread that gets a
 * connection's descriptor gets its session too, so several channels are encrypted by several threads.
 */
import { libc, needLibc, type PskPrototypes } from './libc.ts';

const P = 'uintptr_t';
const I = 'int';
const L = 'long';
const T = 'str';

/** As OpenSSL's manual has them: the type of the result, then those of the arguments. */
const FUNCTIONS = {
  TLS_method: [P],
  SSL_CTX_new: [P, P],
  SSL_CTX_free: ['void', P],
  SSL_CTX_ctrl: [L, P, I, L, P],
  SSL_CTX_set_options: ['uint64_t', P, 'uint64_t'],
  SSL_CTX_set_num_tickets: [I, P, 'size_t'],
  SSL_CTX_set_ciphersuites: [I, P, T],
  SSL_CTX_set_cipher_list: [I, P, T],
  SSL_CTX_set_verify: ['void', P, I, P],
  SSL_CTX_use_certificate_chain_file: [I, P, T],
  SSL_CTX_use_PrivateKey_file: [I, P, T, I],
  SSL_CTX_load_verify_file: [I, P, T],
  SSL_CTX_get_cert_store: [P, P],
  SSL_CTX_set_psk_client_callback: ['void', P, P],
  SSL_CTX_set_psk_server_callback: ['void', P, P],
  X509_STORE_load_file: [I, P, T],
  X509_STORE_set_flags: [I, P, 'unsigned long'],
  SSL_new: [P, P],
  SSL_free: ['void', P],
  SSL_get_SSL_CTX: [P, P],
  SSL_set_accept_state: ['void', P],
  SSL_set_connect_state: ['void', P],
  SSL_set_bio: ['void', P, P, P],
  SSL_set0_rbio: ['void', P, P],
  SSL_set0_wbio: ['void', P, P],
  SSL_get_wbio: [P, P],
  SSL_get0_param: [P, P],
  SSL_set1_host: [I, P, T],
  X509_VERIFY_PARAM_set1_ip_asc: [I, P, T],
  SSL_do_handshake: [I, P],
  SSL_read: [I, P, P, I],
  SSL_write: [I, P, P, I],
  SSL_key_update: [I, P, I],
  SSL_shutdown: [I, P],
  SSL_get_error: [I, P, I],
  SSL_get_verify_result: [L, P],
  X509_verify_cert_error_string: [T, L],
  SSL_get1_peer_certificate: [P, P],
  X509_free: ['void', P],
  X509_get_subject_name: [P, P],
  X509_NAME_print_ex: [I, P, P, I, 'unsigned long'],
  BIO_s_mem: [P],
  BIO_f_buffer: [P],
  BIO_new: [P, P],
  BIO_new_socket: [P, I, I],
  BIO_push: [P, P, P],
  BIO_free_all: ['void', P],
  BIO_ctrl: [L, P, I, L, P],
  BIO_int_ctrl: [L, P, I, L, I],
  BIO_read: [I, P, P, I],
  BIO_write: [I, P, P, I],
  ERR_get_error: ['unsigned long'],
  ERR_reason_error_string: [T, 'unsigned long'],
  ERR_clear_error: ['void'],
} as const;

type Value<D> = D extends typeof T ? string : number;
type Call<D> = D extends readonly [infer R, ...infer A]
  ? (...args: { [K in keyof A]: Value<A[K]> }) => Value<R>
  : never;

export type OpenSsl = { readonly [K in keyof typeof FUNCTIONS]: Call<(typeof FUNCTIONS)[K]> };

let bound: OpenSsl | undefined;

/** Throws NATIVE_UNAVAILABLE. */
export function openSsl(): OpenSsl {
  bound ??= bind();
  return bound;
}

function bind(): OpenSsl {
  const library = needLibc('TLS').load(null);
  const entries = Object.entries(FUNCTIONS).map(([name, [result, ...args]]) => [
    name,
    library.func(name, result, args),
  ]);
  return Object.fromEntries(entries) as OpenSsl;
}

/** Results of SSL_get_error. */
export const SSL_ERROR = { NONE: 0, SSL: 1, WANT_READ: 2, WANT_WRITE: 3, SYSCALL: 5, ZERO_RETURN: 6 } as const;

/** Of BIO_ctrl. */
export const BIO_CTRL = { PENDING: 10, FLUSH: 11, SET_BUFFER_SIZE: 117 } as const;

/** Low bits of an error code; the connection ended without a word of the session's end. */
const REASON_MASK = 0x7f_ffff;
const UNEXPECTED_EOF = 294;

/**
 * What OpenSSL says of its last failure in this thread; the queue of such words is empty afterwards. It must be empty before a call whose failure is
 * asked about. `cut`: the connection has ended and the session has not. An empty `reason`: it does not say.
 */
export function sslFailure(o: OpenSsl): { readonly cut: boolean; readonly reason: string } {
  const code = o.ERR_get_error();
  o.ERR_clear_error();
  const reason = code === 0 ? '' : ((o.ERR_reason_error_string(code) as string | null) ?? `0x${code.toString(16)}`);
  return { cut: (code & REASON_MASK) === UNEXPECTED_EOF, reason };
}

/** For the life of the process: OpenSSL may call it whenever a session begins. Its address. */
export function registerPsk<K extends keyof PskPrototypes>(kind: K, callback: PskPrototypes[K]): number {
  needLibc('TLS');
  return libc()!.registerPsk(kind, callback);
}
