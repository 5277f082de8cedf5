import { freemem } from 'node:os';
import type { DestinationMachine, SourceMachine } from '../../machine/index.ts';
import { canVector } from '../../native/index.ts';
import {
  CAPABILITY_NAMES,
  type CapabilityName,
  PARAMETER_NAMES,
  type ParameterName,
  parameterDeclaration,
  type SettingsView,
  valuesTaken,
} from '../../settings/index.ts';
import { uuidText } from '../../wire/index.ts';
import type { EndFacts } from '../fit/index.ts';

/** That this version speaks. A newer one adds members to what is said, which an older one ignores; what is new is used only if both know it. */
export const HANDSHAKE_SPOKEN = 2;

type Machine = Pick<SourceMachine | DestinationMachine, 'ram' | 'devices' | 'uuid' | 'machineType' | 'runState'>;

/** What cannot be switched on for this migration, whatever the settings say. */
export function impossible(can: {
  /** There can be connections beside main. */
  readonly moreConnections: boolean;
  readonly multifd: boolean;
  /** Of the machine: it can run on before all of its RAM is there. */
  readonly postcopy: boolean;
}): ReadonlySet<CapabilityName> {
  return new Set([
    // Threads need system calls of their own.
    ...(can.multifd && can.moreConnections && canVector() ? [] : (['multifd'] as const)),
    ...(can.postcopy ? [] : (['postcopy-ram'] as const)),
    ...(can.moreConnections ? [] : (['postcopy-preempt'] as const)),
  ]);
}

/** What this end tells of itself: its machine, and the settings that both ends must agree on. `cannot`: what is impossible in this migration, if it is off. */
export function ownFacts(
  machine: Machine,
  settings: SettingsView,
  cannot: ReadonlySet<CapabilityName> = new Set(),
): EndFacts {
  const { machineType, uuid, ram, devices, runState } = machine;
  const usable = CAPABILITY_NAMES.filter(
    (name) => settings.capability(name) || (settings.isKnown(name) && !cannot.has(name)),
  );
  const parameters = AGREED.filter((name) => settings.isKnown(name));
  return {
    handshake: HANDSHAKE_SPOKEN,
    runState,
    ...(machineType === undefined ? {} : { machineType }),
    ...(uuid === undefined ? {} : { uuid: uuidText(uuid) }),
    capabilities: Object.fromEntries(usable.map((name) => [name, settings.capability(name)])),
    parameters: Object.fromEntries(parameters.map((name) => [name, settings.parameter(name)])),
    given: [...CAPABILITY_NAMES, ...AGREED].filter((name) => settings.isGiven(name)),
    takes: Object.fromEntries(
      parameters.flatMap((name) => {
        const taken = valuesTaken(name, settings.parameter(name));
        return taken === undefined ? [] : [[name, taken]];
      }),
    ),
    ...(ram === undefined
      ? {}
      : {
          ram: ram.map(({ idstr, usedLength, pageSize }) => {
            return { name: idstr, used: usedLength, max: usedLength, pageSize };
          }),
        }),
    vfio: (devices ?? []).map(({ name, idstr, precopy, p2p }) => ({ name, section: idstr, precopy, p2p })),
    freeMemory: freemem(),
  };
}

const AGREED: readonly ParameterName[] = PARAMETER_NAMES.filter((name) => {
  const { ends } = parameterDeclaration(name);
  return name === 'x-handshake-insist' || ends === 'same' || ends === 'both or none';
});
