/**
 * Words for an end that only sees the other one go. Two ends that are not set alike part early, and a QEMU tells the reason to nobody but its own log: so
 * whoever is left says what to compare.
 */
import { FerryError } from '../base/index.ts';
import {
  CAPABILITY_NAMES,
  capabilityDeclaration,
  PARAMETER_NAMES,
  parameterDeclaration,
  type SettingsView,
} from '../settings/index.ts';
import { isTransportError } from '../transport/index.ts';
import { MigrationError } from './errors.ts';

/** What is seen of a peer that leaves. */
const LEFT = ['TRANSPORT_RESET', 'TRANSPORT_TLS_CUT', 'DATAPLANE_LOST', 'DATAPLANE_ENDED'];
const SEEN = {
  source: new Set(['WIRE_TRUNCATED', ...LEFT]),
  destination: new Set(['MIGRATION_PEER_GONE', 'MIGRATION_PEER_FAILED', ...LEFT]),
} as const satisfies Readonly<Record<string, ReadonlySet<string>>>;

/** The error of an end whose peer has left before anything of the guest was through; any other is what it was. */
export function leftEarly(error: Error, who: keyof typeof SEEN, settings: SettingsView): Error {
  if (!(error instanceof FerryError) || !SEEN[who].has(error.code)) return error;
  const message = `the ${who} gave up at the very beginning: is it set up as this end is (${whatMustAgree(settings)})?`;
  return new MigrationError({ code: 'MIGRATION_LEFT_EARLY', who }, message, error);
}

/** Settings that must be the same at both ends, as they are here. */
function whatMustAgree(settings: SettingsView): string {
  const agreed = CAPABILITY_NAMES.filter((name) => {
    const { ends, support, since } = capabilityDeclaration(name);
    return support === 'yes' && since !== 'vmferry' && (ends === 'same' || ends === 'implied');
  });
  const names = (on: boolean) => agreed.filter((name) => settings.capability(name) === on).join(', ');
  const values = PARAMETER_NAMES.filter((name) => {
    const { ends, support, partOf } = parameterDeclaration(name);
    const matters = partOf === undefined || agreed.some((one) => partOf.includes(one) && settings.capability(one));
    return support === 'yes' && (ends === 'same' || ends === 'both or none') && matters;
  }).map((name) => `${name} ${settings.parameter(name) === '' ? 'not set' : settings.parameter(name)}`);
  const parts = [names(true) === '' ? [] : [`on: ${names(true)}`], [`off: ${names(false)}`], values];
  return parts.flat().join('; ');
}

/** A further channel that nobody takes, though the main one was taken a moment before. `compare`: the settings it depends on. */
export function notTaken(channel: string, compare: string, thrown: unknown): unknown {
  if (!isTransportError(thrown) || thrown.code !== 'TRANSPORT_REFUSED') return thrown;
  const message = `${channel}: the destination does not take this channel: ${compare} the same there?`;
  return new MigrationError({ code: 'MIGRATION_CHANNEL_NOT_TAKEN', channel }, message, thrown);
}
