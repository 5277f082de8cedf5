/**
 * transport: how bytes travel. `connect` gives the outgoing end of an address, `listen` the incoming one; either way a `Channel`, or (`dial`,
 * `next`) a `Connection` that nobody reads yet. On `TlsTerms` either is a TLS session (`tls/`).
 * `ChannelOutput` stages and shapes what a sender writes. Knows nothing of what the bytes mean.
 */
export * from './address.ts';
export * from './channel.ts';
export {
  CONNECT_TIMEOUT_MS,
  type ConnectOptions,
  connect,
  dial,
  isSocketAddress,
  type SocketAddress,
} from './connect.ts';
export type { Connection } from './connection.ts';
export { isTransportError, type TransportError, type TransportFault } from './errors.ts';
export { isExposed, type ListenOptions, listen } from './listener.ts';
export * from './output.ts';
export { Pacer } from './pacer.ts';
export { ReadRing } from './read-ring.ts';
export { CREDENTIALS_DEFAULTS, type CredentialsOptions, TlsCredentials } from './tls/credentials.ts';
export type { TlsTerms } from './tls/handshake.ts';
