/** Multifd wants several connections: what that asks of an address, and of settings. */
import { type SettingsView, WAITS } from '../settings/index.ts';
import {
  type Address,
  type Channel,
  connect,
  dial,
  isSocketAddress,
  type Listener,
  listen,
  type TlsTerms,
} from '../transport/index.ts';
import { unsupported } from './errors.ts';
import type { Dial } from './source/dial-all.ts';

/** Throws MIGRATION_UNSUPPORTED if the settings ask for more than one connection and the address has only one. */
export function requireConnections(settings: SettingsView, address: Address): void {
  if (settings.capability('postcopy-preempt') && !isSocketAddress(address))
    throw unsupported(`postcopy-preempt over ${address.kind}: (it needs tcp: or unix:)`);
  if (!settings.capability('multifd')) return;
  // A file that is opened more than once: what mapped-ram asks of an address is another question.
  if (settings.capability('mapped-ram')) return;
  if (!isSocketAddress(address)) throw unsupported(`multifd over ${address.kind}: (it needs tcp: or unix:)`);
}

/** Of connections between the ends; what is absent is as by default: clear text, and as long as one may take. */
export interface ConnectTerms {
  readonly tls?: TlsTerms | undefined;
  readonly settings?: SettingsView | undefined;
}

const timeoutOf = ({ settings }: ConnectTerms) => settings?.parameter(WAITS.connection.deadline);

/** How the main connection to that address is made. */
export function connector(address: Address, terms: ConnectTerms = {}): (signal: AbortSignal) => Promise<Channel> {
  return (signal) => connect(address, { signal, tls: terms.tls, timeoutMs: timeoutOf(terms) });
}

/** How to make further connections to that address; undefined if there can be no others. */
export function dialer(address: Address, terms: ConnectTerms = {}): Dial | undefined {
  if (!isSocketAddress(address)) return undefined;
  return (role, signal) => dial(address, { role, signal, tls: terms.tls, timeoutMs: timeoutOf(terms) });
}

/** Where a source is awaited. Throws TransportError. */
export function listenAt(address: Address, { tls, settings }: ConnectTerms): Promise<Listener> {
  return listen(address, { tls, timeoutMs: settings?.parameter(WAITS.introduction.deadline) });
}

/** Throws MIGRATION_UNSUPPORTED where an address or another setting leaves no place for TLS. */
export function requirePlaceForTls(tls: TlsTerms | undefined, settings: SettingsView, address: Address): void {
  if (tls === undefined) return;
  if (settings.capability('mapped-ram')) throw unsupported('TLS with mapped-ram');
  if (address.kind === 'file') throw unsupported('TLS over file:');
}
