import { CAPABILITY_NAMES, type CapabilityName, type CapabilityStatus } from '../settings/index.ts';
import type { Peer } from './peer.ts';

/** Capabilities that leave the main stream as a checkpoint takes and gives it; what is not listed here changes it, or waits for a person. */
const HARMLESS: ReadonlySet<CapabilityName> = new Set([
  'xbzrle',
  'auto-converge',
  'zero-blocks',
  'events',
  'release-ram',
  'return-path',
  'postcopy-blocktime',
  'late-block-activate',
  'validate-uuid',
  'dirty-limit',
]);

/** What must be switched off at a peer for a plain stream over one channel: a manager may have left something on. */
export async function plainStream(peer: Peer): Promise<CapabilityStatus[]> {
  const known: readonly string[] = CAPABILITY_NAMES;
  const now = await peer.execute('query-migrate-capabilities');
  return now
    .filter(({ capability, state }) => state && known.includes(capability))
    .map(({ capability }) => capability as CapabilityName)
    .filter((capability) => !HARMLESS.has(capability))
    .map((capability) => ({ capability, state: false }));
}
