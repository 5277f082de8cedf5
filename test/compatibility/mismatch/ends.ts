/** One end of a cell as it is set up: settings, credentials, and what it says when it is over. */
import { explain } from '../../../src/base/index.ts';
import { Objects } from '../../../src/migration/index.ts';
import { type CapabilityName, type ParameterName, parseCompat, Settings } from '../../../src/settings/index.ts';
import type { Hardware, Having, Side } from './model.ts';
import { CREDENTIALS } from './rows.ts';

/** Of the waits that a difference may end in: short, so that what they end is seen to be theirs, ms. */
export const WAIT_MS = 3_000;
const WAITS: Readonly<Partial<Record<ParameterName, number>>> = {
  'x-setup-timeout': WAIT_MS,
  'x-arrival-timeout': WAIT_MS,
  'x-handshake-timeout': WAIT_MS,
  'x-closing-timeout': WAIT_MS / 3,
};

/** An end that could not be had so; thrown before there is a migration. */
export class NotTaken extends Error {}

/** Throws NotTaken: the setting is refused where it is set. */
export function settingsOf(end: Having & Hardware, handshake = false): Settings {
  const { capabilities = [], parameters = {}, compat = [] } = end;
  const settings = new Settings({ compat: parseCompat(compat) });
  const names = [...capabilities, ...(handshake ? ['x-vmferry-handshake'] : [])] as CapabilityName[];
  try {
    settings.setCapabilities(names.map((capability) => ({ capability, state: true })));
    settings.setParameters({ 'max-bandwidth': 0, 'downtime-limit': 30_000, ...WAITS, ...parameters });
  } catch (refused) {
    throw new NotTaken(explain(refused));
  }
  return settings;
}

/** Arguments of object-add; every end has them, whether it uses them or not. `tls`: their folder. */
export function credentials(tls: string, side: Side) {
  const common = { 'qom-type': 'tls-creds-psk', id: CREDENTIALS, dir: tls } as const;
  return side === 'source'
    ? ({ ...common, endpoint: 'client', username: 'qemu' } as const)
    : ({ ...common, endpoint: 'server' } as const);
}

export function objectsOf(tls: string, side: Side): Objects {
  const objects = new Objects();
  objects.add({ username: '', ...credentials(tls, side), 'verify-peer': true });
  return objects;
}

/** Once one end is over, the other may wait for the next who comes, by design: so long it is looked at still, ms. */
export const WAITS_ON_MS = WAIT_MS;

/** Of such an end. */
export const stillWaits = (waitingFor = 'nothing') => `still waits for ${waitingFor}`;

/** What a command throws before anything is sent, as what the end says. */
export async function orRefusal<T>(command: Promise<T>): Promise<T | Error> {
  try {
    return await command;
  } catch (thrown) {
    return thrown instanceof Error ? thrown : new Error(String(thrown));
  }
}
