/** TLS of commands that need no more than a folder: the objects and parameters that it stands for, here and at the process at the other end. */
import { Objects } from '../migration/index.ts';
import { type Assignments, type ObjectOptions, objectOptions } from '../settings/index.ts';
import type { Peer } from './peer.ts';

export interface TlsChoice {
  readonly kind: 'x509' | 'psk';
  /** Of the credentials, laid out as QEMU's are. */
  readonly dir: string;
  /** Of x509: the peer must show a certificate of the authority. */
  readonly verifyPeer: boolean;
  /** The name that the server's certificate must carry, if that is not the host of the address. */
  readonly hostname?: string | undefined;
  /** The only client that may come, as CN=client,O=Org. */
  readonly identity?: string | undefined;
}

type Endpoint = 'client' | 'server';
type Parameters = Assignments['parameters'];

export interface OwnTls {
  readonly objects: Objects;
  readonly parameters: Parameters;
}

const CREDENTIALS = 'tls0';
const AUTHZ = 'authz0';
/** At a process of somebody else's: a name that is nobody else's. */
const PEER_CREDENTIALS = 'vmferry-tls0';

/** For a migration in this process: the choice, if there is one, and what else was `declared`. Throws OBJECT_ID, TRANSPORT_TLS_CREDENTIALS. */
export function ownTls(
  choice: TlsChoice | undefined,
  endpoint: Endpoint,
  declared: readonly ObjectOptions[] = [],
): OwnTls {
  const objects = new Objects();
  for (const options of declared) objects.add(options);
  if (choice === undefined) return { objects, parameters: {} };
  objects.add(objectOptions(credentialsOf(choice, CREDENTIALS, endpoint)));
  const { identity } = choice;
  if (identity === undefined || endpoint === 'client') {
    return { objects, parameters: { 'tls-creds': CREDENTIALS, ...hostnameOf(choice, endpoint) } };
  }
  objects.add(objectOptions({ 'qom-type': 'authz-simple', id: AUTHZ, identity }));
  return { objects, parameters: { 'tls-creds': CREDENTIALS, 'tls-authz': AUTHZ } };
}

/**
 * For the process at the other end: credentials from the same folder, unless `given` names some that it has. Returns the parameters to set, and how to
 * drop what was declared. Throws what QMP throws.
 */
export async function peerTls(peer: Peer, choice: TlsChoice | undefined, endpoint: Endpoint, given: Parameters) {
  if (choice === undefined) return { parameters: {}, undo: async () => {} };
  const hostname = hostnameOf(choice, endpoint);
  if (given['tls-creds'] !== undefined) return { parameters: hostname, undo: async () => {} };
  await peer.execute('object-add', credentialsOf(choice, PEER_CREDENTIALS, endpoint));
  return {
    parameters: { 'tls-creds': PEER_CREDENTIALS, ...hostname },
    undo: async () => {
      await peer.execute('object-del', { id: PEER_CREDENTIALS });
    },
  };
}

function credentialsOf({ kind, dir, verifyPeer }: TlsChoice, id: string, endpoint: Endpoint) {
  const common = { id, endpoint, dir };
  if (kind === 'psk') return { 'qom-type': 'tls-creds-psk', ...common };
  return { 'qom-type': 'tls-creds-x509', ...common, 'verify-peer': verifyPeer };
}

function hostnameOf({ hostname }: TlsChoice, endpoint: Endpoint): Parameters {
  return endpoint === 'client' && hostname !== undefined ? { 'tls-hostname': hostname } : {};
}
