import { type Assignments, CAPABILITY_NAMES, type CapabilityName } from '../settings/index.ts';
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

/** What must be put aside at a peer for a plain stream over one channel in clear text: a manager may have left something on. */
export async function plainStream(peer: Peer): Promise<Assignments> {
  const known: readonly string[] = CAPABILITY_NAMES;
  const capabilities = (await peer.execute('query-migrate-capabilities'))
    .filter(({ capability, state }) => state && known.includes(capability))
    .map(({ capability }) => capability as CapabilityName)
    .filter((capability) => !HARMLESS.has(capability))
    .map((capability) => ({ capability, state: false }));
  const { 'tls-creds': tls } = await peer.execute('query-migrate-parameters');
  return { capabilities, parameters: typeof tls === 'string' && tls !== '' ? { 'tls-creds': '' } : {} };
}
