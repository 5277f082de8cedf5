/** What an end tells of itself in the handshake. */
import { freemem } from 'node:os';
import type { DestinationMachine, LoadCost, LoadOrder, SourceMachine } from '../../machine/index.ts';
import { canVector } from '../../native/index.ts';
import {
  CAPABILITY_NAMES,
  type CapabilityName,
  COMPAT_NAMES,
  COMPAT_PROPERTIES,
  compatText,
  PARAMETER_NAMES,
  type ParameterName,
  parameterDeclaration,
  type SettingsView,
  valuesTaken,
} from '../../settings/index.ts';
import { MULTIFD_DEVICE_BYTES_MAX, MULTIFD_PACKET_PAGES_BYTES, RAM_BLOCKS_MAX, uuidText } from '../../wire/index.ts';
import { within } from '../deadline.ts';
import type { EndFacts, LoadFacts, VfioFacts } from '../fit/index.ts';

/** That this version speaks. A newer one adds members to what is said, which an older one ignores; what is new is used only if both know it. */
export const HANDSHAKE_SPOKEN = 2;

/** Figures of devices help, but nobody waits longer for them, ms: a device that hangs is found out elsewhere. */
const FIGURES_MS = 2_000;

/** Beside what both ends must agree on. */
const TOLD: ReadonlySet<ParameterName> = new Set(['x-handshake-insist', 'downtime-limit']);
const PARAMETERS_TOLD: readonly ParameterName[] = PARAMETER_NAMES.filter((name) => {
  const { ends } = parameterDeclaration(name);
  return TOLD.has(name) || ends === 'same' || ends === 'both or none' || ends === 'at most';
});

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

/** `cannot`: what is impossible. */
export function settingFacts(
  settings: SettingsView,
  cannot: ReadonlySet<CapabilityName>,
): Pick<EndFacts, 'handshake' | 'capabilities' | 'parameters' | 'given' | 'takes'> {
  const usable = CAPABILITY_NAMES.filter(
    (name) => settings.capability(name) || (settings.isKnown(name) && !cannot.has(name)),
  );
  const parameters = PARAMETERS_TOLD.filter((name) => settings.isKnown(name));
  const takes = parameters.flatMap((name) => {
    const taken = valuesTaken(name, settings.parameter(name));
    return taken === undefined ? [] : [[name, taken] as const];
  });
  return {
    handshake: HANDSHAKE_SPOKEN,
    capabilities: Object.fromEntries(usable.map((name) => [name, settings.capability(name)])),
    parameters: Object.fromEntries(parameters.map((name) => [name, settings.parameter(name)])),
    given: [...CAPABILITY_NAMES, ...PARAMETERS_TOLD].filter((name) => settings.isGiven(name)),
    takes: Object.fromEntries(takes),
  };
}

export async function sourceFacts(
  machine: SourceMachine,
  settings: SettingsView,
  cannot: ReadonlySet<CapabilityName>,
): Promise<EndFacts> {
  const cost = await told(machine.switchoverCost?.('parallel'));
  return {
    ...(await machineFacts(machine, settings)),
    ...settingFacts(settings, cannot),
    ...(cost === undefined ? {} : { stopMs: cost.stopMs }),
  };
}

/** `order`: in which the destination will load its devices. */
export async function destinationFacts(
  machine: DestinationMachine,
  settings: SettingsView,
  cannot: ReadonlySet<CapabilityName>,
  order: LoadOrder,
): Promise<EndFacts> {
  const load = await told(machine.loadCost?.(order));
  const freeDisk = await told(machine.freeSpace?.());
  return {
    ...(await machineFacts(machine, settings)),
    ...settingFacts(settings, cannot),
    ...(load === undefined ? {} : { load: loadFacts(load) }),
    ...(freeDisk === undefined ? { freeMemory: freemem() } : { freeDisk }),
  };
}

async function machineFacts(machine: SourceMachine | DestinationMachine, settings: SettingsView): Promise<EndFacts> {
  const { machineType, uuid, ram, runState } = machine;
  return {
    runState,
    ...(machineType === undefined ? {} : { machineType, dialect: dialectFacts(settings, machineType) }),
    ...(uuid === undefined ? {} : { uuid: uuidText(uuid) }),
    ...(ram === undefined
      ? {}
      : {
          ram: ram.map(({ idstr, usedLength, pageSize }) => {
            return { name: idstr, used: usedLength, max: usedLength, pageSize };
          }),
        }),
    vfio: await vfioFacts(machine),
    limits: {
      packetBytes: MULTIFD_PACKET_PAGES_BYTES,
      bufferBytes: MULTIFD_DEVICE_BYTES_MAX,
      blocks: RAM_BLOCKS_MAX,
    },
  };
}

function dialectFacts(settings: SettingsView, machineType: string): Readonly<Record<string, string>> {
  const profile = settings.dialect(machineType);
  return Object.fromEntries(COMPAT_NAMES.map((name) => [COMPAT_PROPERTIES[name].property, compatText(profile[name])]));
}

async function vfioFacts(machine: SourceMachine | DestinationMachine): Promise<readonly VfioFacts[]> {
  const { devices = [] } = machine;
  const figures = (await told(machine.deviceFigures?.())) ?? [];
  return devices.map(({ idstr: section, instance, ...features }) => {
    const own = figures.find((one) => one.idstr === section && one.instance === instance);
    return {
      ...features,
      section,
      instance,
      ...(own?.stateBytes === undefined ? {} : { stateBytes: own.stateBytes }),
      ...(own === undefined ? {} : { load: loadFacts(own.load) }),
    };
  });
}

function loadFacts({ ms, bytesPerMs }: LoadCost): LoadFacts {
  return { ms, ...(Number.isFinite(bytesPerMs) ? { bytesPerMs } : {}) };
}

/** The answer, if it comes in time. */
async function told<T>(answer: Promise<T> | undefined): Promise<T | undefined> {
  return answer && (await within(answer, FIGURES_MS, 'figures').catch(() => undefined));
}
