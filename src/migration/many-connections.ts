/** Multifd wants several connections: what that asks of an address, and of settings. */
import type { SettingsView } from '../settings/index.ts';
import { type Address, dial, isSocketAddress, type TlsTerms } from '../transport/index.ts';
import { unsupported } from './errors.ts';
import type { Dial } from './source/multifd.ts';

/** Throws MIGRATION_UNSUPPORTED if the settings ask for more than one connection and the address has only one. */
export function requireConnections(settings: SettingsView, address: Address): void {
  if (settings.capability('postcopy-preempt') && !isSocketAddress(address))
    throw unsupported(`postcopy-preempt over ${address.kind}: (it needs tcp: or unix:)`);
  if (!settings.capability('multifd')) return;
  // A file that is opened more than once: what mapped-ram asks of an address is another question.
  if (settings.capability('mapped-ram')) return;
  if (!isSocketAddress(address)) throw unsupported(`multifd over ${address.kind}: (it needs tcp: or unix:)`);
}

/** How to make further connections to that address; undefined if there can be no others. */
export function dialer(address: Address, tls?: TlsTerms): Dial | undefined {
  return isSocketAddress(address) ? (role, signal) => dial(address, { role, signal, tls }) : undefined;
}

/** Throws MIGRATION_UNSUPPORTED where an address or another setting leaves no place for TLS. */
export function requirePlaceForTls(tls: TlsTerms | undefined, settings: SettingsView, address: Address): void {
  if (tls === undefined) return;
  if (settings.capability('mapped-ram')) throw unsupported('TLS with mapped-ram');
  if (address.kind === 'file') throw unsupported('TLS over file:');
}
