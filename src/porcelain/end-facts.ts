/** The facts of one end of a migration, as far as its QMP tells them. Only questions are asked: nothing of the process is touched. */
import {
  type BlockFacts,
  type CpuFacts,
  type EndFacts,
  impossible,
  type ProgramFacts,
  type VfioFacts,
} from '../migration/index.ts';
import { QmpError, type QmpOwnDevice, type QmpPciDevice, type QmpVersion } from '../qemu/index.ts';
import { checkValue, PARAMETER_NAMES, parameterDeclaration, valuesTaken } from '../settings/index.ts';
import type { Peer } from './peer.ts';
import { parseRamBlocks } from './ram-blocks.ts';

const NO_UUID = '00000000-0000-0000-0000-000000000000';

/** Throws what QMP throws when the peer goes away; what it refuses to tell is absent. */
export async function factsOf(peer: Peer): Promise<EndFacts> {
  const own = await told(peer.execute('x-query-machine'));
  const migration = await told(peer.execute('query-migrate'));
  const uuid = own?.uuid ?? (await told(peer.execute('query-uuid')))?.UUID;
  const vfio = (await told(peer.execute('x-query-devices')))?.map(vfioFacts);
  const parameters = await told(peer.execute('query-migrate-parameters'));
  const dialect = own && (await told(peer.execute('x-query-compat')));
  return present({
    program: programOf(await told(peer.execute('query-version'))),
    runState: (await told(peer.execute('query-status')))?.status,
    migration: migration && (migration.status ?? 'none'),
    blocked: migration?.['blocked-reasons'],
    machineType: own?.type ?? (await machineTypeOf(peer)),
    uuid: uuid === NO_UUID ? undefined : uuid,
    handshake: own?.handshake,
    capabilities: await capabilitiesOf(peer, vfio ?? []),
    parameters,
    dialect: dialect && Object.fromEntries(dialect.map(({ property, value }) => [property, value])),
    given: own?.given,
    takes: own && takesOf(parameters ?? {}),
    ram:
      own?.ram.map(({ name, size, 'page-size': pageSize }) => ({ name, used: size, max: size, pageSize })) ??
      (await blocksOf(peer)),
    cpus: own === undefined ? await cpusOf(peer) : { count: own.vcpus },
    devices: await devicesOf(peer),
    pci: await pciOf(peer),
    vfio,
    stopMs: own?.['stop-time'],
    load: own?.['load-time'] === undefined ? undefined : { ms: own['load-time'] },
    freeMemory: own?.['free-memory'],
  });
}

/** The reply, or undefined if the peer refuses: it does not know the command, or has nothing of the kind. */
async function told<T>(reply: Promise<T>): Promise<T | undefined> {
  try {
    return await reply;
  } catch (error) {
    if (error instanceof QmpError) return undefined;
    throw error;
  }
}

function programOf(version: QmpVersion | undefined): ProgramFacts | undefined {
  if (version === undefined) return undefined;
  const { major, minor, micro } = version.qemu;
  const own = version.package.startsWith('vmferry ');
  return { name: own ? version.package : `QEMU ${major}.${minor}.${micro}`, version: `${major}.${minor}` };
}

/** The machine type of a QEMU, as streams name it. */
export async function machineTypeOf(peer: Peer): Promise<string | undefined> {
  const type = await told(peer.execute('qom-get', { path: '/machine', property: 'type' }));
  return typeof type === 'string' ? type.replace(/-machine$/, '') : undefined;
}

/** Those that it knows, and could have in a migration over sockets. */
async function capabilitiesOf(peer: Peer, vfio: readonly VfioFacts[]): Promise<Record<string, boolean> | undefined> {
  const list = await told(peer.execute('query-migrate-capabilities'));
  const cannot: ReadonlySet<string> = impossible({ moreConnections: true, multifd: true, postcopy: vfio.length === 0 });
  const usable = list?.filter(({ capability, state }) => state || !cannot.has(capability));
  return usable && Object.fromEntries(usable.map(({ capability, state }) => [capability, state]));
}

/** Of a vmferry process. */
function takesOf(parameters: Readonly<Record<string, unknown>>): EndFacts['takes'] {
  const taken = PARAMETER_NAMES.flatMap((name) => {
    const value = checkValue(parameterDeclaration(name).type, parameters[name]);
    const values = value === undefined ? undefined : valuesTaken(name, value as never);
    return values === undefined ? [] : [[name, values] as const];
  });
  return Object.fromEntries(taken);
}

function vfioFacts(device: QmpOwnDevice): VfioFacts {
  const { name, section, precopy, p2p, deadlines } = device;
  return present({
    name,
    section,
    precopy,
    p2p,
    initialData: device['initial-data'],
    deadlines,
    stateBytes: device['state-size'],
  });
}

async function blocksOf(peer: Peer): Promise<readonly BlockFacts[] | undefined> {
  const table = await told(peer.execute('x-query-ramblock'));
  return table && parseRamBlocks(table['human-readable-text']);
}

async function cpusOf(peer: Peer): Promise<CpuFacts | undefined> {
  const cpus = await told(peer.execute('query-cpus-fast'));
  if (cpus === undefined) return undefined;
  const path = cpus[0]?.['qom-path'];
  const model = path && (await told(peer.execute('qom-get', { path, property: 'type' })));
  const kvm = await told(peer.execute('query-kvm'));
  return {
    count: cpus.length,
    ...(typeof model === 'string' ? { model } : {}),
    ...(kvm === undefined ? {} : { accelerator: kvm.enabled ? 'kvm' : 'tcg' }),
  };
}

/** Devices of the command line and those plugged in later; QEMU keeps the ones without an id in a container of their own. */
async function devicesOf(peer: Peer): Promise<Record<string, number> | undefined> {
  const found: Record<string, number> = {};
  for (const path of ['/machine/peripheral', '/machine/peripheral-anon']) {
    const list = await told(peer.execute('qom-list', { path }));
    if (list === undefined) return undefined;
    for (const { type } of list) {
      const name = /^child<(.*)>$/.exec(type)?.[1];
      if (name !== undefined) found[name] = (found[name] ?? 0) + 1;
    }
  }
  return found;
}

async function pciOf(peer: Peer): Promise<Record<string, string> | undefined> {
  const buses = await told(peer.execute('query-pci'));
  return buses && Object.fromEntries(buses.flatMap(({ devices }) => functionsOf(devices)));
}

function functionsOf(devices: readonly QmpPciDevice[]): [string, string][] {
  return devices.flatMap(({ bus, slot, function: index, id, pci_bridge: bridge }) => [
    [`${hex(bus, 2)}:${hex(slot, 2)}.${index}`, `${hex(id.vendor, 4)}:${hex(id.device, 4)}`],
    ...functionsOf(bridge?.devices ?? []),
  ]);
}

const hex = (value: number, digits: number) => value.toString(16).padStart(digits, '0');

/** Without the members that are undefined. */
function present<T extends object>(members: { [K in keyof T]: T[K] | undefined }): T {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined)) as T;
}
