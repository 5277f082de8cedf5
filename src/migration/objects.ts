import { FerryError } from '../base/index.ts';
import type { ObjectOptions, SettingsView } from '../settings/index.ts';
import { TlsCredentials, type TlsTerms } from '../transport/index.ts';

export type ObjectFault =
  /** An id that is not there, is there already, or is of another kind than is wanted. */
  { readonly code: 'OBJECT_ID'; readonly id: string };

type Kept =
  | { readonly kind: 'credentials'; readonly credentials: TlsCredentials }
  | { readonly kind: 'authz'; readonly identity: string };

/** What an operator has declared of one process: credentials and who may come, by id. */
export class Objects {
  readonly #objects = new Map<string, Kept>();

  /** Credentials are loaded and checked here, not when a guest is to leave. Throws OBJECT_ID, TRANSPORT_TLS_CREDENTIALS, NATIVE_UNAVAILABLE. */
  add(options: ObjectOptions): void {
    const { id } = options;
    if (this.#objects.has(id))
      throw objectError(id, `attempt to add duplicate property '${id}' to object (type 'container')`);
    this.#objects.set(id, kept(options));
  }

  /** A migration that is under way keeps what it has. Throws OBJECT_ID. */
  remove(id: string): void {
    if (!this.#objects.delete(id)) throw objectError(id, `object '${id}' not found`);
  }

  /** What the parameters tls-creds, tls-hostname and tls-authz ask for; undefined: clear text. Throws OBJECT_ID. */
  tls(settings: SettingsView, endpoint: 'client' | 'server'): TlsTerms | undefined {
    const id = settings.parameter('tls-creds');
    if (id === '') return undefined;
    const object = this.#objects.get(id);
    // Words of QEMU's.
    if (object === undefined) throw objectError(id, `No TLS credentials with id '${id}'`);
    if (object.kind !== 'credentials') throw objectError(id, `Object with id '${id}' is not TLS credentials`);
    const { credentials } = object;
    if (credentials.endpoint !== endpoint) throw objectError(id, `Expected TLS credentials for a ${endpoint} endpoint`);
    const hostname = settings.parameter('tls-hostname');
    if (endpoint === 'client') return { credentials, hostname: hostname === '' ? undefined : hostname };
    return { credentials, identity: this.#identity(settings.parameter('tls-authz')) };
  }

  #identity(id: string): string | undefined {
    if (id === '') return undefined;
    const object = this.#objects.get(id);
    if (object?.kind !== 'authz') throw objectError(id, `Cannot find QAuthZ object ID ${id}`);
    return object.identity;
  }
}

function kept(options: ObjectOptions): Kept {
  switch (options['qom-type']) {
    case 'authz-simple':
      return { kind: 'authz', identity: options.identity };
    case 'tls-creds-psk': {
      const { endpoint, dir, username } = options;
      return {
        kind: 'credentials',
        credentials: new TlsCredentials({ kind: 'psk', endpoint, dir, username, verifyPeer: true }),
      };
    }
    case 'tls-creds-x509': {
      const { endpoint, dir, 'verify-peer': verifyPeer } = options;
      return {
        kind: 'credentials',
        credentials: new TlsCredentials({ kind: 'x509', endpoint, dir, verifyPeer, username: '' }),
      };
    }
  }
}

function objectError(id: string, message: string): FerryError<ObjectFault> {
  return new FerryError({ code: 'OBJECT_ID', id }, message);
}
