import { freemem } from 'node:os';
import type { DestinationMachine, SourceMachine } from '../../machine/index.ts';
import {
  CAPABILITY_NAMES,
  PARAMETER_NAMES,
  type ParameterName,
  parameterDeclaration,
  type SettingsView,
} from '../../settings/index.ts';
import { uuidText } from '../../wire/index.ts';
import type { EndFacts } from '../fit/index.ts';

type Machine = Pick<SourceMachine | DestinationMachine, 'ram' | 'devices' | 'uuid' | 'machineType' | 'runState'>;

/** What this end tells of itself: its machine, and the settings that both ends must agree on. */
export function ownFacts(machine: Machine, settings: SettingsView): EndFacts {
  const { machineType, uuid, ram, devices, runState } = machine;
  return {
    runState,
    ...(machineType === undefined ? {} : { machineType }),
    ...(uuid === undefined ? {} : { uuid: uuidText(uuid) }),
    capabilities: Object.fromEntries(CAPABILITY_NAMES.map((name) => [name, settings.capability(name)])),
    parameters: Object.fromEntries(AGREED.map((name) => [name, settings.parameter(name)])) as Record<string, unknown>,
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
  return ends === 'same' || ends === 'both or none';
});
