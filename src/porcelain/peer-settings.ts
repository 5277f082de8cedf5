import type { QmpCapability } from '../qemu/index.ts';
import type { Assignments } from '../settings/index.ts';
import { PorcelainError } from './errors.ts';
import type { Peer } from './peer.ts';

type ParameterMap = Readonly<Record<string, number | boolean | string>>;

/**
 * Sets capabilities and parameters of a process. Returns how to put back what was changed. Throws PEER_SETTING for a name that this peer
 * (its version) does not know, else what QMP throws; then nothing is changed.
 */
export async function applySettings(peer: Peer, wanted: Assignments): Promise<() => Promise<void>> {
  const capabilities = await capabilityChanges(peer, wanted);
  const parameters = await parameterChanges(peer, wanted);
  await setCapabilities(peer, capabilities.next);
  try {
    await setParameters(peer, parameters.next);
  } catch (error) {
    await setCapabilities(peer, capabilities.previous);
    throw error;
  }
  return async () => {
    await setCapabilities(peer, capabilities.previous);
    await setParameters(peer, parameters.previous);
  };
}

async function capabilityChanges(peer: Peer, { capabilities }: Assignments) {
  const next: QmpCapability[] = [];
  const previous: QmpCapability[] = [];
  if (capabilities.length === 0) return { next, previous };
  const now = new Map((await peer.execute('query-migrate-capabilities')).map((one) => [one.capability, one.state]));
  // Named twice: the last word counts.
  for (const [capability, state] of new Map(capabilities.map((one) => [one.capability, one.state]))) {
    const before = now.get(capability);
    // What a peer does not know is off there.
    if (before === undefined && state) throw unknown(peer, capability);
    if (before === undefined || before === state) continue;
    next.push({ capability, state });
    previous.push({ capability, state: before });
  }
  return { next, previous };
}

async function parameterChanges(peer: Peer, { parameters }: Assignments) {
  const next: Record<string, number | boolean | string> = {};
  const previous: Record<string, number | boolean | string> = {};
  const names = Object.keys(parameters);
  if (names.length === 0) return { next, previous };
  const now = await peer.execute('query-migrate-parameters');
  for (const [name, value] of Object.entries(parameters as ParameterMap)) {
    const before = now[name];
    if (before === undefined) throw unknown(peer, name);
    next[name] = value;
    previous[name] = before as number | boolean | string;
  }
  return { next, previous };
}

async function setCapabilities(peer: Peer, capabilities: readonly QmpCapability[]): Promise<void> {
  if (capabilities.length > 0) await peer.execute('migrate-set-capabilities', { capabilities });
}

async function setParameters(peer: Peer, parameters: ParameterMap): Promise<void> {
  if (Object.keys(parameters).length > 0) await peer.execute('migrate-set-parameters', parameters);
}

function unknown(peer: Peer, name: string): PorcelainError {
  return new PorcelainError(
    { code: 'PEER_SETTING', peer: peer.path, name },
    `${peer.path}: this process knows no migration setting '${name}'`,
  );
}
