/**
 * Of two ends of the same machine type one may have been switched to another dialect by hand (--compat, x-set-compat), or not know a property yet. The source
 * writes the bytes, so its way counts: when multifd channels meet, who counts the ACKs of switchover-ack, ... A property that one of them does not know
 * cannot be gone by: then the old way counts, which is what everybody knows.
 */
import { COMPAT_NAMES, COMPAT_PROPERTIES, type CompatName, compatText } from '../../settings/index.ts';
import type { EndFacts } from './facts.ts';
import type { Settlement } from './settle.ts';

const PREFIX = 'compat ';

export type DialectName = `${typeof PREFIX}${string}`;

/** Both ends come to the same by themselves. */
export function settleDialect(source: EndFacts, destination: EndFacts): readonly Settlement[] {
  if (source.machineType !== destination.machineType) return [];
  if (source.dialect === undefined || destination.dialect === undefined) return [];
  return COMPAT_NAMES.flatMap((name) => {
    const { property, old } = COMPAT_PROPERTIES[name];
    const [here, there] = [valueAt(source, name), valueAt(destination, name)];
    const value = here === undefined || there === undefined ? old : here;
    const ends = { source: here ?? old, destination: there ?? old };
    return ends.source === ends.destination ? [] : [{ name: `${PREFIX}${property}` as const, value, ...ends }];
  });
}

/** Undefined: not told, or nothing that this version knows. */
function valueAt({ dialect }: EndFacts, name: CompatName): boolean | string | undefined {
  const { property, old, modern } = COMPAT_PROPERTIES[name];
  return [old, modern].find((value) => compatText(value) === dialect?.[property]);
}

/** The property that a settlement is about; undefined: it is about a setting. */
export function compatNameOf(name: string): CompatName | undefined {
  return COMPAT_NAMES.find((one) => name === `${PREFIX}${COMPAT_PROPERTIES[one].property}`);
}
